"""Damaged files sent to a service in a separate process: no 5xx, no hang, no crash, little memory.

`tests/service/segmentation/test_damaged.py` tests decoding alone; this tests every call that takes a file.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.service.broken_files import FILES, damaged
from tests.service.conftest import encoded
from tests.service.fuzzing import effort
from tests.service.test_process import Server
from tests.service.tiny_bundle import picture, write_bundle

# Time limit of one response in seconds. It takes milliseconds; the limit allows for a slow machine, not for a hang.
TIME_LIMIT_S = 20
# Growth limit of the process: an image of a million pixels takes a few megabytes, however it is encoded.
MEMORY_LIMIT_BYTES = 200_000_000
REJECTED = {400, 413, 415, 422}


@dataclass(frozen=True)
class Call:
    """A call that takes a file."""

    method: str
    path: str
    headers: dict[str, str]
    form: bool = False


FORM = {"Content-Type": "multipart/form-data; boundary=x"}
CALLS = [
    Call("POST", "/v1/segment", {}),
    Call("POST", "/v1/segment?polygons=true&confidence=true", {"Accept": "application/json"}),
    Call("POST", "/v1/segment?contribute=true", {"Accept": "image/jpeg"}),
    Call("POST", "/v1/segment", FORM, form=True),
    Call("POST", "/v1/segment/batch", FORM, form=True),
    Call("POST", "/v1/images", {"Content-Type": "image/png"}),
    Call("PUT", "/v1/images/{image}/mask", {}),
    Call("POST", "/v2/models/seg_bytes/infer", {"Inference-Header-Content-Length": "0"}),
]


class Client:
    """A connection to a service with an image in its pool."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIME_LIMIT_S)
        self.image = json.loads(self.send(Call("POST", "/v1/images", {}), encoded(picture(40, 30)))[1])["id"]
        for call in CALLS:
            for data in FILES.values():
                self.send(call, data)
        self.warm_bytes = self.memory("VmRSS")

    def send(self, call: Call, data: bytes) -> tuple[int, bytes]:
        """Send a file; return status and body of the response."""
        part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + data + b"\r\n--x--\r\n"
        path = call.path.format(image=getattr(self, "image", ""))
        self._connection.request(call.method, path, part if call.form else data, call.headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def memory(self, field: str) -> int:
        """Return the memory of the process in bytes: field VmRSS is the current value, VmHWM the peak."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("broken")
    server = Server(write_bundle(folder / "bundle"), folder / "data", max_image_pixels="1000000", log_level="ERROR")
    try:
        server.wait_ready()
        with closing(Client(server)) as ready:
            yield ready
    finally:
        server.process.terminate()
        server.process.wait(30)


@pytest.mark.parametrize("name", FILES)
def test_damaged_file_gets_a_response_and_is_never_a_fault(client: Client, name: str) -> None:
    @given(st.sampled_from(CALLS), damaged(FILES[name]))
    @effort(40)
    def try_one(call: Call, data: bytes) -> None:
        begin = time.monotonic()
        status, body = client.send(call, data)
        assert time.monotonic() - begin < TIME_LIMIT_S
        assert status in {200, 201} | REJECTED, body
        if call.path.endswith("batch") and status == 200:
            assert all(json.loads(line)["status"] in {200} | REJECTED for line in body.splitlines()), body
        elif status in REJECTED:
            problem = json.loads(body)
            assert problem.get("detail") or problem["error"]

    try_one()
    assert client.server.process.poll() is None
    assert client.send(CALLS[0], FILES["PNG"])[0] == 200
    assert client.memory("VmHWM") - client.warm_bytes < MEMORY_LIMIT_BYTES
