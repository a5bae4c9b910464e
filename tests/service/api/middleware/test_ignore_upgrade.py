"""Requests that offer another protocol, such as HTTP/2, are served as HTTP/1.1; clients that offer it always."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.settings import Settings
from tests.service.api.middleware.conftest import Address, serving
from tests.service.conftest import TEST_KEY, encoded, read, settings_maker
from tests.service.tiny_bundle import COLORS, nearest, picture, write_bundle

IMAGE = encoded(picture())
MASK = nearest(picture(), COLORS)
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
OFFERS = {"h2c": H2C, "websocket": WEBSOCKET, "none": b""}

JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.file.Path;

class Segment {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        var file = HttpRequest.BodyPublishers.ofFile(Path.of(arguments[1]));
        for (int number = 0; number < 2; number++) {
            var request = HttpRequest.newBuilder(URI.create(arguments[0])).POST(file).build();
            var response = client.send(request, HttpResponse.BodyHandlers.ofFile(Path.of(arguments[2])));
            System.out.println(response.statusCode() + " " + response.version());
        }
    }
}
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    folder = tmp_path_factory.mktemp("upgrade")
    settings: Settings = settings_maker(folder, write_bundle(folder / "bundle"))()
    with serving(settings) as running:
        yield running


def head(path: str, offer: bytes, *more: bytes, method: str = "POST") -> bytes:
    fields = b"".join(field + b"\r\n" for field in (b"Host: localhost", b"X-API-Key: " + TEST_KEY.encode(), *more))
    return f"{method} {path} HTTP/1.1\r\n".encode() + fields + offer + b"\r\n"


def chunked(data: bytes) -> bytes:
    parts = [data[at : at + 100] for at in range(0, len(data), 100)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def exchange(address: Address, *pieces: bytes, responses: int) -> list[tuple[int, bytes]]:
    """Send pieces one by one, and read this many responses from the one connection."""
    with socket.create_connection(address, timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        stream = connection.makefile("rb")
        found = []
        for _ in range(responses):
            status = int(stream.readline().split()[1])
            fields = http.client.parse_headers(stream)
            assert "upgrade" not in fields
            found.append((status, stream.read(int(fields["content-length"]))))
        return found


LENGTH = b"Content-Length: %d" % len(IMAGE)


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("size", [1 << 20, 1, 37])
def test_body_of_a_request_that_offers_an_upgrade_is_read(address: Address, offer: bytes, size: int) -> None:
    sized = head("/v1/segment", offer, LENGTH) + IMAGE
    parts = head("/v1/segment", offer, b"Transfer-Encoding: chunked") + chunked(IMAGE)
    # Both on one connection, the second one sent before the response to the first.
    sent = sized + parts + head("/livez", offer, method="GET")
    responses = exchange(address, *(sent[at : at + size] for at in range(0, len(sent), size)), responses=3)
    assert [status for status, _ in responses] == [200] * 3
    for _, mask in responses[:2]:
        np.testing.assert_array_equal(read(mask), MASK)


def test_offer_is_ignored_on_every_kind_of_route(address: Address) -> None:
    wanted = {
        ("GET", "/docs"): 200,
        ("GET", "/"): 307,
        ("GET", "/v2"): 200,
        ("POST", "/v1/images"): 201,
        ("POST", "/v2/repository/index"): 400,
        ("POST", "/v1/nothing"): 404,
    }
    for (method, path), status in wanted.items():
        body = IMAGE if method == "POST" else b""
        request = head(path, H2C, b"Content-Length: %d" % len(body), method=method) + body
        # The connection stays usable.
        responses = exchange(address, request, head("/livez", b"", method="GET"), responses=2)
        assert [found for found, _ in responses] == [status, 200], path


def test_body_of_the_last_request_of_a_connection_is_read(address: Address) -> None:
    first = head("/v1/segment", H2C, LENGTH) + IMAGE
    for closing in (first.replace(b"HTTP/1.1", b"HTTP/1.0"), first.replace(b"Connection: ", b"Connection: close, ")):
        responses = exchange(address, first, closing, responses=2)
        assert [status for status, _ in responses] == [200, 200]
        np.testing.assert_array_equal(read(responses[1][1]), MASK)


def test_expect_100_continue_still_works(address: Address) -> None:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(head("/v1/segment", H2C, LENGTH, b"Expect: 100-continue"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(IMAGE)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_upgrade_is_not_logged(address: Address, caplog: pytest.LogCaptureFixture) -> None:
    for method in ("GET", "CONNECT"):
        exchange(address, head("/livez", WEBSOCKET, method=method), responses=1)
    assert caplog.records == []


def test_contradicting_lengths_are_rejected_with_an_offer(address: Address) -> None:
    """Parsing the head twice must not let a request through that is invalid otherwise."""
    for more in ((LENGTH, b"Transfer-Encoding: chunked"), (LENGTH, b"Content-Length: 1")):
        (response,) = exchange(address, head("/v1/segment", H2C, *more), responses=1)
        assert response == (400, b"Invalid HTTP request received.")


def test_curl_that_offers_http2(address: Address, tmp_path: Path) -> None:
    program = shutil.which("curl")
    if program is None or b"HTTP2" not in subprocess.run([program, "-V"], capture_output=True, check=True).stdout:
        pytest.skip("curl with HTTP/2 is not installed; other tests send the same bytes")
    (tmp_path / "photo.png").write_bytes(IMAGE)
    options = ["--http2", "--fail", "--silent", "--max-time", "30", "--data-binary", f"@{tmp_path / 'photo.png'}"]
    ended = subprocess.run(
        [program, *options, "http://{}:{}/v1/segment".format(*address)], capture_output=True, check=True, timeout=60
    )
    np.testing.assert_array_equal(read(ended.stdout), MASK)


def test_java_client(address: Address, tmp_path: Path) -> None:
    """Its HttpClient offers HTTP/2 unless it is told not to."""
    if shutil.which("javac") is None:
        pytest.skip("no JDK is installed; other tests send the same bytes")
    source, photo, mask = tmp_path / "Segment.java", tmp_path / "photo.png", tmp_path / "mask.png"
    source.write_text(JAVA)
    photo.write_bytes(IMAGE)
    url = "http://{}:{}/v1/segment".format(*address)
    command = ["java", "-XX:TieredStopAtLevel=1", str(source), url, str(photo), str(mask)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.stdout.splitlines() == ["200 HTTP_1_1"] * 2, ended.stderr
    np.testing.assert_array_equal(read(mask.read_bytes()), MASK)
