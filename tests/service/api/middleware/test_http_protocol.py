"""What a client may send that is no body: a head, and no more of it than a head has."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from service.api.middleware.http_protocol import HEADERS_TOO_LARGE, MAX_HEADER_BYTES, MAX_HEADERS
from service.api.uvicorn_server import make_server
from service.listening_socket import listen
from service.settings import Settings
from service.state import start_state
from tests.service.conftest import eventually

HEAD = b"POST /v1/segment HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LINE = b"y" * 1000
TIMES = 40 * MAX_HEADER_BYTES // len(LINE)


@pytest.fixture
def address(settings: Settings) -> Iterator[tuple[str, int]]:
    """Where a service listens as `python -m service serve` does."""
    with listen("127.0.0.1", 0) as sock:
        server = make_server(start_state(settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            eventually(lambda: server.started, within_s=60)
            yield sock.getsockname()
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("before", "piece"),
    [
        (b"GET /", LINE),
        (HEAD + b"X-A: ", LINE),
        (HEAD, b"X-A: " + LINE + b"\r\n"),
        (CHUNKED + b"1\r\nx\r\n0\r\nX-A: ", LINE),
        (CHUNKED + b"1;a=", LINE),
    ],
    ids=["address", "header", "headers", "trailer", "extension"],
)
def test_what_has_no_end_is_ended(address: tuple[str, int], before: bytes, piece: bytes) -> None:
    with socket.create_connection(address, timeout=60) as client:
        # Only so much fits into the buffers of the system; the rest nobody takes, or it is refused.
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(before)
            for _ in range(TIMES):
                client.sendall(piece)
        with suppress(ConnectionResetError):
            while client.recv(100_000):
                pass
    _answers(address)


def test_too_many_headers_are_told_so(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(HEAD + b"a: b\r\n" * (MAX_HEADERS + 1))
        assert client.recv(1000) == HEADERS_TOO_LARGE
        assert client.recv(1) == b""
    _answers(address)


def test_the_refusal_is_as_long_as_it_says() -> None:
    head, body = HEADERS_TOO_LARGE.split(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head


def test_many_small_requests_on_one_connection_add_up_to_nothing(address: tuple[str, int]) -> None:
    with closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
        for _ in range(4):
            for content in (None, b"x" * 2 * MAX_HEADER_BYTES):
                connection.request("POST" if content else "GET", "/livez", content, {"X-A": "y" * 20_000})
                response = connection.getresponse()
                response.read()
                assert response.status in (200, 405)


def test_a_body_in_chunks_may_be_long(address: tuple[str, int]) -> None:
    with closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
        chunks = (LINE for _ in range(TIMES))
        connection.request("POST", "/v1/segment", chunks, encode_chunked=True)
        response = connection.getresponse()
        assert response.status in (415, 503)
        response.read()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
def test_who_takes_nothing_of_an_answer_is_cut_off() -> None:
    with listen("127.0.0.1", 0) as sock, socket.socket() as client:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
        client.connect(sock.getsockname())
        server, _ = sock.accept()
        with server, pytest.raises(TimeoutError, match="timed out"):
            server.sendall(bytes(100_000_000))


def _answers(address: tuple[str, int]) -> None:
    with closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
