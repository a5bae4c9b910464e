"""Upload images to running services as fast as they take them, each build in turn."""

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from itertools import count, islice
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.benchmarks.serving.rounds import Plan
from tests.benchmarks.serving.server_process import ServerProcess
from tests.benchmarks.serving.servers import ROOT, SERVERS

CLIENTS, BATCH_CLIENTS = 8, 3
BATCH = 50
"""Images in one request to /v1/images/batch."""
SIZE = (640, 480)
MAX_RATE = 1000
"""Images a second that are prepared."""
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'

Send = Callable[[ServerProcess, Sequence[bytes], float], int]


def ingest(folder: Path, before: Path | None, *, pool: int, turns: int, seconds: float) -> dict[str, float]:
    """Return images a second into a pool of `pool` images, medians over the turns.

    This build one by one (`ours`) and in batches (`ours, batches`), and an earlier one (`before`).
    """
    sides = {"ours": ("ours", _rate), "ours, batches": ("ours", _batch_rate), "before": ("before", _rate)}
    names = [name for name in sides if before or name != "before"]
    folder.mkdir()
    plan = Plan(
        servers=tuple({sides[name][0] for name in names}),
        rounds=1,
        seconds=seconds,
        timeout_s=30,
        bundle=ROOT / "service/starter",
        cores=2,
        settings={},
        folder=folder,
        photographs=folder,
        before=before,
    )
    images = photographs()
    rates: dict[str, list[float]] = {name: [] for name in names}
    servers = {name: ServerProcess(SERVERS[name], plan.launch(name)) for name in plan.servers}
    try:
        for server in servers.values():
            _send_all(server, list(islice(_variants(_tiny()), pool)))
            server.pause()
        for turn in range(turns):
            for name in names if turn % 2 == 0 else names[::-1]:
                server, rate = servers[sides[name][0]], sides[name][1]
                server.resume()
                rates[name].append(rate(server, images, seconds))
                server.pause()
    finally:
        for server in servers.values():
            server.stop()
    return {name: median(found) for name, found in rates.items()}


def photographs() -> Iterator[bytes]:
    """Return 640x480 JPEGs of about 115 kB without end; a comment makes each different, the pixels are equal."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.int16) + rng.integers(-12, 12, (SIZE[1], SIZE[0], 3))
    return _variants(_jpeg(noisy.clip(0, 255).astype(np.uint8)))


def _tiny() -> bytes:
    return _jpeg(np.zeros((8, 8, 3), np.uint8))


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="JPEG", quality=88)
    return sink.getvalue()


def _variants(jpeg: bytes) -> Iterator[bytes]:
    for number in count():
        comment = f"{number:012}".encode()
        # Start of image, a comment segment, the rest.
        yield jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + jpeg[2:]


def _rate(server: ServerProcess, images: Iterator[bytes], seconds: float) -> float:
    return _timed(_send, server, list(islice(images, int(MAX_RATE * seconds))), CLIENTS, seconds)


def _batch_rate(server: ServerProcess, images: Iterator[bytes], seconds: float) -> float:
    return _timed(_send_batches, server, list(islice(images, int(MAX_RATE * seconds))), BATCH_CLIENTS, seconds)


def _timed(send: Send, server: ServerProcess, images: Sequence[bytes], clients: int, seconds: float) -> float:
    """Send for some seconds from several clients; return images a second."""
    start = time.perf_counter()
    parts = (images[i::clients] for i in range(clients))
    with ThreadPoolExecutor(clients) as pool:
        sent = sum(pool.map(lambda part: send(server, part, start + seconds), parts))
    return sent / (time.perf_counter() - start)


def _send_all(server: ServerProcess, images: Sequence[bytes]) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda first: _send(server, images[first::CLIENTS], math.inf), range(CLIENTS)))


def _send(server: ServerProcess, images: Sequence[bytes], end: float) -> int:
    """Upload images one by one over one connection until a time; return how many."""
    with closing(HTTPConnection("127.0.0.1", server.launch.port, timeout=30)) as connection:
        for sent, data in enumerate(images):
            if time.perf_counter() > end:
                return sent
            connection.request("POST", "/v1/images", data, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != HTTPStatus.CREATED:
                raise RuntimeError(f"an upload got {answer.status}: {body[:200]!r}")
    return len(images)


def _send_batches(server: ServerProcess, images: Sequence[bytes], end: float) -> int:
    """As `_send`, in batches."""
    with closing(HTTPConnection("127.0.0.1", server.launch.port, timeout=30)) as connection:
        for sent in range(0, len(images), BATCH):
            if time.perf_counter() > end:
                return sent
            batch = images[sent : sent + BATCH]
            body = b"".join(PART + data + b"\r\n" for data in batch) + b"--x--\r\n"
            connection.request("POST", "/v1/images/batch", body, {"Content-Type": "multipart/form-data; boundary=x"})
            answer = connection.getresponse().read()
            if answer.count(b'"status":201') != len(batch):
                raise RuntimeError(f"a batch got {answer[:200]!r}")
    return len(images)
