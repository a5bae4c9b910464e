"""Broken files over HTTP, to a service in a process of its own: each is answered, by no 5xx, and the service lives on.

What `tests/service/segmentation/test_damaged.py` asks of decoding, asked of every call that takes a file.
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

# Of one answer. It takes milliseconds; a slow machine is no failure, and a file without end is.
TIME_LIMIT_S = 20
# Of the whole process: a picture of a million pixels takes a few megabytes, however it came to be one.
MEMORY_LIMIT_BYTES = 200_000_000
REFUSED = {400, 413, 415, 422}


@dataclass(frozen=True)
class Call:
    """A way to send a file."""

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
    """A service, the connection to it, and an image in its pool."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIME_LIMIT_S)
        self.image = json.loads(self.send(Call("POST", "/v1/images", {}), encoded(picture(40, 30)))[1])["id"]
        for call in CALLS:
            for data in FILES.values():
                self.send(call, data)
        self.warm_bytes = self.memory("VmRSS")

    def send(self, call: Call, data: bytes) -> tuple[int, bytes]:
        """Status and body of the answer, which has to be there in time."""
        part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + data + b"\r\n--x--\r\n"
        path = call.path.format(image=getattr(self, "image", ""))
        self._connection.request(call.method, path, part if call.form else data, call.headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def memory(self, field: str) -> int:
        """Bytes of the process, as Linux counts them: VmRSS now, VmHWM at most."""
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
def test_a_broken_file_is_answered_and_no_fault(client: Client, name: str) -> None:
    @given(st.sampled_from(CALLS), damaged(FILES[name]))
    @effort(40)
    def try_one(call: Call, data: bytes) -> None:
        begin = time.monotonic()
        status, body = client.send(call, data)
        assert time.monotonic() - begin < TIME_LIMIT_S
        assert status in {200, 201} | REFUSED, body
        if call.path.endswith("batch") and status == 200:
            assert all(json.loads(line)["status"] in {200} | REFUSED for line in body.splitlines()), body
        elif status in REFUSED:
            told = json.loads(body)
            assert told.get("detail") or told["error"]

    try_one()
    assert client.server.process.poll() is None
    assert client.send(CALLS[0], FILES["PNG"])[0] == 200
    assert client.memory("VmHWM") - client.warm_bytes < MEMORY_LIMIT_BYTES
