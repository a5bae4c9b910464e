"""Growth of resident memory over many requests of mixed sizes."""

import asyncio
import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.benchmarks.serving.connections import Pool, request_head
from tests.soak.service import Service

CLIENTS = 8
FORMATS = ("JPEG", "PNG", "WEBP")
RESPONSE_TYPES = ("image/png", "application/json", "image/jpeg")
MEASUREMENTS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """Responses and memory."""

    requests: int
    statuses: dict[int, int]
    after_bytes: list[int]
    """Resident memory at evenly spaced requests."""
    warm_up: int
    """Number of requests after which memory should not grow."""

    @property
    def grown_bytes(self) -> int:
        """Mean of the last tenth minus mean of the tenth after the warm-up: single values may include a large image."""
        tenth = max(1, len(self.after_bytes) // 10)
        begin = len(self.after_bytes) * self.warm_up // self.requests
        first, last = self.after_bytes[begin : begin + tenth], self.after_bytes[-tenth:]
        return round(sum(last) / len(last) - sum(first) / len(first))


def pictures(count: int, largest: int, seed: int = 0) -> list[bytes]:
    """Encode smooth noise in several formats, with sides from 1 to `largest` pixels."""
    rng = np.random.default_rng(seed)
    files = []
    for number in range(count):
        height, width = (int(length) for length in np.exp(rng.uniform(0, np.log(largest), 2)))
        small = rng.integers(0, 256, (max(1, height // 16), max(1, width // 16), 3), dtype=np.uint8)
        sink = io.BytesIO()
        Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR).save(sink, FORMATS[number % 3])
        files.append(sink.getvalue())
    return files


def growth(service: Service, files: list[bytes], *, requests: int, warm_up: int) -> Growth:
    """Send requests and measure the memory MEASUREMENTS times.

    Args:
        service: The service.
        files: Images to send in turn.
        requests: Number of requests.
        warm_up: Number of requests after which memory should not grow.
    """
    return asyncio.run(_growth(service, files, requests, warm_up))


async def _growth(service: Service, files: list[bytes], requests: int, warm_up: int) -> Growth:
    pool, statuses, numbers, memory = Pool(service.port), Counter[int](), iter(range(requests)), list[int]()

    async def client() -> None:
        for number in numbers:
            file = files[number % len(files)]
            head = request_head("/v1/segment", {"Accept": RESPONSE_TYPES[number // len(files) % 3]}, len(file))
            statuses[(await pool.request((head, file))).status] += 1
            if number % max(1, requests // MEASUREMENTS) == 0:
                memory.append(service.memory_bytes)

    try:
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    finally:
        pool.close()
    return Growth(requests=requests, statuses=dict(statuses), after_bytes=memory, warm_up=warm_up)
