"""Requests that no client library sends: random paths, queries and headers, written to a socket.

None is a fault of the service, and every error has the format of its path.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from structlog.testing import capture_logs

from service.settings import Settings
from tests.service.api.v2.conftest import Server, serving
from tests.service.conftest import TEST_KEY
from tests.service.fuzzing import effort
from tests.service.tiny_bundle import write_bundle

METHODS = [*["GET"] * 4, *["POST"] * 8, "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "NONE"]
PREFIXES = [
    *("/", "/docs/page/", "/docs/swagger/", "/openapi.json", "/metrics", "/v1/segment/", "/v1/models/", "/v1/runs/"),
    *("/?key=", "/?key=%ff"),
    *("/v1/images", "/v1/images/", "/v1/images?cursor=", "/v1/images?limit=", "/v1/runs?limit=", "/v1/segment?model="),
    *("/v1/segment?classes=", "/v1/segment?tolerance_px=", "/v2/", "/v2/models/", "/v2/models/seg/versions/"),
    *("/v2/models/seg/infer", "/v2/repository/index", "/v2/repository/models/"),
]
FRAGMENTS = [
    *(
        "%00",
        "%ff",
        "%ed%a0%80",
        "%c0%ae",
        "%F0%9F%98%80",
        "%0d%0a",
        "%",
        "%zz",
        "%2e%2e",
        "..",
        "/",
        "//",
        "%2f",
        "%5c",
    ),
    *("?", "#", "&", "=", ";", ":", "@", "*", "nan", "inf", "-1", "1e400", "9" * 20, "1-", "1_0", "a", "x" * 3000),
]
# Headers that the service or a library parses, and values for each. ANY is tried for all of them.
ANY = [b"", b"\xff\xfe", b",;,;q=", b"-1", b"9" * 5000]
HEADERS: dict[str, list[bytes]] = {
    "Accept": [b"*/*;q=\xff", b"image/png;q=nan"],
    "Accept-Encoding": [b"gzip", b"gzip;q=\xff"],
    "Authorization": [b"Bearer \xff", b"Bearer", b"Basic ???"],
    "Content-Encoding": [b"gzip", b"gzip, gzip"],
    "Content-Type": [b"multipart/form-data", b"multipart/form-data; boundary=\xff", b"application/json; charset=none"],
    "Cookie": [b"\xff=\xfe", b"maskloop_key=\xff", b'maskloop_key="%ff', b"maskloop_key="],
    "Host": [b"[::1", b"a:b:c", b"\xff.com"],
    "If-Modified-Since": [b"now"],
    "If-None-Match": [b"*"],
    "Inference-Header-Content-Length": [b"0x10", b"1_0", b"2"],
    "Last-Event-ID": [b"1_0", b"9" * 19],
    "Origin": [b"null", b"http://[::1", b"http://localhost"],
    "Priority": [b"u=99", b"u="],
    "Range": [b"bytes=0-0", b"bytes=-", b"bytes=0-1,2-3,5-"],
    "Sec-Fetch-Site": [b"none"],
    "Traceparent": [b"00-\xff"],
    "X-API-Key": [b"\xe9"],
    "X-Forwarded-For": [b"\xff, ,", b"::1, 127.0.0.1:x"],
    "X-Request-Id": [b"a b"],
    "X-Request-Timeout-Ms": [b"0x10", b"1e3", b"1"],
}
PAIRS = [(name, value) for name, values in HEADERS.items() for value in values + ANY]
BODIES = [b"", b"x", b"{}", b"[]", b'{"parameters":{"version":"\\ud800"}}', b"--x\r\n", b"\xff\xfe"]

PATHS = st.builds(
    "{}{}".format, st.sampled_from(PREFIXES), st.lists(st.sampled_from(FRAGMENTS), max_size=3).map("".join)
)
FIELDS = st.lists(
    st.sampled_from(PAIRS) | st.tuples(st.sampled_from(list(HEADERS)), st.binary(max_size=20)), max_size=3
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("odd")
    settings = Settings(
        data_dir=folder / "data", model=str(write_bundle(folder / "bundle")), api_key=SecretStr(TEST_KEY)
    )
    with serving(settings) as running:
        yield running


def send(server: Server, request: bytes) -> tuple[bytes, bytes]:
    """Send a request; return the head and the body of the response."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(request)
        response = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = response.partition(b"\r\n\r\n")
    return head, body


def serialise(method: str, path: str, fields: list[tuple[str, bytes]], body: bytes) -> bytes:
    """Serialise a request with a valid key, or with a cookie; line breaks in header values are removed."""
    key = {} if "Cookie" in dict(fields) else {"X-API-Key": TEST_KEY.encode()}
    lines = {"Host": b"localhost"} | key | dict(fields) | {"Content-Length": b"%d" % len(body), "Connection": b"close"}
    head = b"".join(
        name.encode() + b": " + value.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n" for name, value in lines.items()
    )
    return f"{method} {path} HTTP/1.1\r\n".encode() + head + b"\r\n" + body


def test_odd_request_is_never_a_fault(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    @given(st.sampled_from(METHODS), PATHS, FIELDS, st.sampled_from(BODIES))
    @effort(1000)
    def try_one(method: str, path: str, fields: list[tuple[str, bytes]], body: bytes) -> None:
        head, content = send(server, serialise(method, path, fields, body))
        status = int(head.split()[1])
        assert status < 500 or status in {501, 503, 504}, head
        # uvicorn rejects invalid HTTP before the application sees it.
        if status >= 400 and method != "HEAD" and content != b"Invalid HTTP request received.":
            problem = json.loads(content)
            if path.startswith("/v2/"):
                assert list(problem) == ["error"]
            else:
                assert problem["status"] == status
                assert b"content-type: application/problem+json" in head.lower()

    with capture_logs() as lines:
        try_one()
    assert [line for line in lines if line["log_level"] in {"error", "critical"}] == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
