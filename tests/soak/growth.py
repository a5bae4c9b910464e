"""Resident memory over very many requests of mixed sizes."""

import asyncio
import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.benchmarks.serving.connections import Pool
from tests.benchmarks.serving.http1 import request_head
from tests.soak.service import Service

CLIENTS = 8
FORMATS = ("JPEG", "PNG", "WEBP")
ANSWERS = ("image/png", "application/json", "image/jpeg")
LOOKS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """What was seen."""

    requests: int
    statuses: dict[int, int]
    after_bytes: list[int]
    """Resident memory, evenly over the requests."""
    settled: int
    """Requests after which it should no longer grow."""

    @property
    def grown_bytes(self) -> int:
        """The mean of the last tenth, less that of the tenth after it had settled: one look may catch a large image."""
        tenth = max(1, len(self.after_bytes) // 10)
        begin = len(self.after_bytes) * self.settled // self.requests
        first, last = self.after_bytes[begin : begin + tenth], self.after_bytes[-tenth:]
        return round(sum(last) / len(last) - sum(first) / len(first))


def pictures(count: int, largest: int, seed: int = 0) -> list[bytes]:
    """Files of soft noise, of sizes from one pixel to so many a side, in several formats."""
    rng = np.random.default_rng(seed)
    files = []
    for number in range(count):
        height, width = (int(side) for side in np.exp(rng.uniform(0, np.log(largest), 2)))
        small = rng.integers(0, 256, (max(1, height // 16), max(1, width // 16), 3), dtype=np.uint8)
        sink = io.BytesIO()
        Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR).save(sink, FORMATS[number % 3])
        files.append(sink.getvalue())
    return files


def growth(service: Service, files: list[bytes], *, requests: int, settled: int) -> Growth:
    """Send so many requests and look at the memory LOOKS times.

    Args:
        service: Whom to ask.
        files: In turn.
        requests: How many.
        settled: After so many it should no longer grow.
    """
    return asyncio.run(_growth(service, files, requests, settled))


async def _growth(service: Service, files: list[bytes], requests: int, settled: int) -> Growth:
    pool, statuses, numbers, memory = Pool(service.port), Counter[int](), iter(range(requests)), list[int]()

    async def client() -> None:
        for number in numbers:
            file = files[number % len(files)]
            head = request_head("/v1/segment", {"Accept": ANSWERS[number // len(files) % 3]}, len(file))
            statuses[(await pool.ask((head, file))).status] += 1
            if number % max(1, requests // LOOKS) == 0:
                memory.append(service.memory_bytes)

    try:
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    finally:
        pool.close()
    return Growth(requests=requests, statuses=dict(statuses), after_bytes=memory, settled=settled)
