"""Limits on request headers, chunk extensions and trailers, and the timeout of unread responses."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from service.api.middleware.http_protocol import HEADERS_TOO_LARGE, MAX_HEADER_BYTES, MAX_HEADERS
from service.listening_socket import listen
from service.settings import Settings
from tests.service.api.middleware.conftest import serving

HEAD = b"POST /v1/segment HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LINE = b"y" * 1000
TIMES = 40 * MAX_HEADER_BYTES // len(LINE)


@pytest.fixture
def address(settings: Settings) -> Iterator[tuple[str, int]]:
    with serving(settings) as running:
        yield running


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (b"GET /", LINE),
        (HEAD + b"X-A: ", LINE),
        (HEAD, b"X-A: " + LINE + b"\r\n"),
        (CHUNKED + b"1\r\nx\r\n0\r\nX-A: ", LINE),
        (CHUNKED + b"1;a=", LINE),
    ],
    ids=["path", "header", "headers", "trailer", "extension"],
)
def test_endless_header_closes_the_connection(address: tuple[str, int], start: bytes, part: bytes) -> None:
    with socket.create_connection(address, timeout=60) as client:
        # More than the socket buffers hold: sending blocks or fails once the server stops reading.
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(start)
            for _ in range(TIMES):
                client.sendall(part)
        with suppress(ConnectionResetError):
            while client.recv(100_000):
                pass
    _check_alive(address)


def test_too_many_headers_get_431(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(HEAD + b"a: b\r\n" * (MAX_HEADERS + 1))
        assert client.recv(1000) == HEADERS_TOO_LARGE
        assert client.recv(1) == b""
    _check_alive(address)


def test_content_length_of_the_431_response_is_correct() -> None:
    head, body = HEADERS_TOO_LARGE.split(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head


def test_header_limit_applies_per_request_not_per_connection(address: tuple[str, int]) -> None:
    with closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
        for _ in range(4):
            for content in (None, b"x" * 2 * MAX_HEADER_BYTES):
                connection.request("POST" if content else "GET", "/livez", content, {"X-A": "y" * 20_000})
                response = connection.getresponse()
                response.read()
                assert response.status in (200, 405)


def test_header_limit_does_not_apply_to_chunked_bodies(address: tuple[str, int]) -> None:
    with closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
        chunks = (LINE for _ in range(TIMES))
        connection.request("POST", "/v1/segment", chunks, encode_chunked=True)
        response = connection.getresponse()
        assert response.status in (415, 503)
        response.read()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="exists on Linux only")
def test_listening_socket_times_out_unread_responses() -> None:
    with listen("127.0.0.1", 0) as sock, socket.socket() as client:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
        client.connect(sock.getsockname())
        server, _ = sock.accept()
        with server, pytest.raises(TimeoutError, match="timed out"):
            server.sendall(bytes(100_000_000))


def _check_alive(address: tuple[str, int]) -> None:
    with closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
