"""Upload images to running services as fast as they take them, each build in turn."""

import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from itertools import count, islice
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from tests.benchmarks.serving.rounds import Plan
from tests.benchmarks.serving.server_process import ServerProcess
from tests.benchmarks.serving.servers import ROOT, SERVERS

CLIENTS = 8
SIZE = (640, 480)
MAX_RATE = 600
"""Images a second that are prepared."""


def ingest(folder: Path, before: Path | None, *, turns: int, seconds: float) -> dict[str, float]:
    """Return images a second of this build (`ours`) and an earlier one (`before`), medians over the turns."""
    names = ("ours", "before") if before else ("ours",)
    folder.mkdir()
    plan = Plan(
        servers=names,
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
    servers = {name: ServerProcess(SERVERS[name], plan.launch(name)) for name in names}
    try:
        for server in servers.values():
            server.pause()
        for turn in range(turns):
            for name in names if turn % 2 == 0 else names[::-1]:
                servers[name].resume()
                rates[name].append(_rate(servers[name], images, seconds))
                servers[name].pause()
    finally:
        for server in servers.values():
            server.stop()
    return {name: median(found) for name, found in rates.items()}


def photographs() -> Iterator[bytes]:
    """Yield 640x480 JPEGs of about 70 kB without end; a comment makes each different, the pixels are equal."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.int16) + rng.integers(-12, 12, (SIZE[1], SIZE[0], 3))
    sink = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(sink, format="JPEG", quality=88)
    jpeg = sink.getvalue()
    for number in count():
        comment = f"{number:012}".encode()
        # Start of image, a comment segment, the rest.
        yield jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + jpeg[2:]


def _rate(server: ServerProcess, images: Iterator[bytes], seconds: float) -> float:
    batch = list(islice(images, int(MAX_RATE * seconds)))
    start = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        sent = sum(
            pool.map(lambda mine: _send(server, mine, start + seconds), (batch[i::CLIENTS] for i in range(CLIENTS)))
        )
    return sent / (time.perf_counter() - start)


def _send(server: ServerProcess, images: Sequence[bytes], end: float) -> int:
    """Upload images over one connection until a time; return how many."""
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
