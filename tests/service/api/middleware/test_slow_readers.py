"""Clients that read their answer slowly or not at all, in front of a real process with buffers of a real system."""

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
# Noise, whose map of confidences no PNG makes smaller: megabytes of answer for a small JPEG.
NOISE = encoded(np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8), "JPEG", quality=20)
LARGE = encoded(np.random.default_rng(0).integers(0, 256, (2600, 2600, 3), dtype=np.uint8), "JPEG", quality=20)
BATCH = "/v1/segment/batch?confidence=true&masks=png"
ZIPPED = "/v1/segment?confidence=true"


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
def asked(server: Server, request: httpx.Request, buffer_bytes: int = 4096) -> Iterator[socket.socket]:
    """A client that has asked, and whose system keeps so little of an answer that it does not read."""
    request.read()
    head = f"POST {request.url.raw_path.decode()} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items()) + "\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        client.settimeout(60)
        client.connect(("127.0.0.1", server.port))
        client.sendall(head.encode() + request.content)
        yield client


def rest_of(client: socket.socket) -> bytes:
    got = io.BytesIO()
    with suppress(ConnectionResetError):
        while piece := client.recv(1_000_000):
            got.write(piece)
    return got.getvalue()


def test_a_batch_that_is_not_read_frees_its_place(server: Server) -> None:
    segmented = 'maskloop_segment_stage_seconds_count{model="20260101T000000-aaaaaaaa",stage="infer"}'
    with asked(server, batch(IMAGES)) as client:
        eventually(lambda: server.metric("maskloop_batches_admitted") == 1)
        eventually(lambda: server.metric("maskloop_batches_admitted") == 0)
        # What remained is not done, and the next one is served at once.
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
        # The chunk that would say that all is there never came.
        assert not rest_of(client).endswith(b"\r\n0\r\n\r\n")


def test_one_large_answer_that_is_not_read_goes(server: Server) -> None:
    with asked(server, httpx.Request("POST", f"http://x{ZIPPED}", content=LARGE)) as client:
        head = client.recv(2000, socket.MSG_WAITALL)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        time.sleep(3 * SEND_TIMEOUT_S)
        assert 0 < len(head + rest_of(client)) < length


def test_who_reads_slowly_has_it_all(server: Server) -> None:
    """Slowly enough that the system asks for more of the answer less often than the limit."""
    request = httpx.Request("POST", f"http://x{ZIPPED}", content=LARGE)
    with asked(server, request, buffer_bytes=100_000) as client:
        got = client.recv(2000, socket.MSG_WAITALL)
        head, body = got.split(b"\r\n\r\n", 1)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert length > 4_000_000
        end = time.monotonic() + 6 * SEND_TIMEOUT_S
        while time.monotonic() < end:
            body += client.recv(20_000, socket.MSG_WAITALL)
            time.sleep(0.1)
        while len(body) < length and (piece := client.recv(1_000_000)):
            body += piece
        assert len(body) == length
