"""Clients that read their response slowly or not at all, with a real process and real socket buffers."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.service.conftest import encoded, eventually
from tests.service.test_process import Server, running

SEND_TIMEOUT_S = 1.0
IMAGES = 60
# Noise: PNG cannot compress its confidences, so a small JPEG gets megabytes of response.
NOISE = encoded(np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8), "JPEG", quality=20)
LARGE = encoded(np.random.default_rng(0).integers(0, 256, (2600, 2600, 3), dtype=np.uint8), "JPEG", quality=20)
BATCH = "/v1/segment/batch?confidence=true&masks=png"
WITH_CONFIDENCE = "/v1/segment?confidence=true"


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[Server]:
    settings = {
        "send_timeout_s": str(SEND_TIMEOUT_S),
        "max_concurrent_batches": "1",
        "max_image_bytes": "20000000",
        "max_native_pixels": "10000000",
        "max_inference_bytes": "4000000000",
        "inference_threads": "1",
    }
    with running(bundle, tmp_path / "served", **settings) as ready:
        yield ready


def batch(count: int) -> httpx.Request:
    return httpx.Request("POST", f"http://x{BATCH}", files=[("file", ("a.jpg", NOISE))] * count)


@contextmanager
def requesting(server: Server, request: httpx.Request, buffer_bytes: int = 4096) -> Iterator[socket.socket]:
    """A client that has sent a request; its socket buffers little of the response."""
    request.read()
    head = f"POST {request.url.raw_path.decode()} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items()) + "\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        client.settimeout(60)
        client.connect(("127.0.0.1", server.port))
        client.sendall(head.encode() + request.content)
        yield client


def read_all(client: socket.socket) -> bytes:
    received = io.BytesIO()
    with suppress(ConnectionResetError):
        while part := client.recv(1_000_000):
            received.write(part)
    return received.getvalue()


def test_unread_batch_is_cancelled_and_frees_its_slot(server: Server) -> None:
    segmented = 'maskloop_segment_stage_seconds_count{model="20260101T000000-aaaaaaaa",stage="infer"}'
    with requesting(server, batch(IMAGES)) as client:
        eventually(lambda: server.metric("maskloop_batches_admitted") == 1)
        eventually(lambda: server.metric("maskloop_batches_admitted") == 0)
        # The remaining images are cancelled, and the next batch is served at once.
        eventually(lambda: server.metric("maskloop_segment_admitted") == 0)
        before = server.metric(segmented)
        assert 0 < before < IMAGES
        request = batch(2)
        content_type = {"Content-Type": request.headers["content-type"]}
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", BATCH, request.read(), content_type)
        assert [json.loads(line)["status"] for line in connection.getresponse().read().splitlines()] == [200, 200]
        connection.close()
        assert server.metric(segmented) == before + 2
        # The final chunk, which would mark the response as complete, was not sent.
        assert not read_all(client).endswith(b"\r\n0\r\n\r\n")


def test_unread_large_response_is_aborted(server: Server) -> None:
    with requesting(server, httpx.Request("POST", f"http://x{WITH_CONFIDENCE}", content=LARGE)) as client:
        head = client.recv(2000, socket.MSG_WAITALL)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        time.sleep(3 * SEND_TIMEOUT_S)
        assert 0 < len(head + read_all(client)) < length


def test_unread_response_is_aborted_although_another_request_has_begun(server: Server) -> None:
    with requesting(server, httpx.Request("POST", f"http://x{WITH_CONFIDENCE}", content=LARGE)) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        head = client.recv(2000, socket.MSG_WAITALL)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        time.sleep(3 * SEND_TIMEOUT_S)
        assert 0 < len(head + read_all(client)) < length


def test_slow_reader_gets_the_whole_response(server: Server) -> None:
    """So slow that the socket accepts more of the response less often than `send_timeout_s`."""
    request = httpx.Request("POST", f"http://x{WITH_CONFIDENCE}", content=LARGE)
    with requesting(server, request, buffer_bytes=100_000) as client:
        received = client.recv(2000, socket.MSG_WAITALL)
        head, body = received.split(b"\r\n\r\n", 1)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert length > 4_000_000
        end = time.monotonic() + 6 * SEND_TIMEOUT_S
        while time.monotonic() < end:
            body += client.recv(20_000, socket.MSG_WAITALL)
            time.sleep(0.1)
        while len(body) < length and (part := client.recv(1_000_000)):
            body += part
        assert len(body) == length
