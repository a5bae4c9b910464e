"""Load generators: closed loops of clients that wait for their response, and open loops with Poisson arrivals."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

from tests.benchmarks.serving.connections import Pool, Response, png_size, request_head

OK, TIMED_OUT, DISCONNECTED, INVALID_MASK = "200", "timed out", "disconnected", "invalid mask"

DEFAULT_RETRY_S = 0.1
"""Delay before a rejected client retries if the response has no Retry-After header."""


class Sample(NamedTuple):
    """One request. Times are seconds since the load began."""

    due_s: float
    """Time at which it was to be sent."""
    done_s: float
    outcome: str
    """One of the constants above, or another HTTP status."""
    timing: str
    """The Server-Timing header."""
    retry_s: float = DEFAULT_RETRY_S
    """Delay before a rejected client retries."""

    @property
    def latency_s(self) -> float:
        """Time since the request was due, so that sending late counts."""
        return self.done_s - self.due_s


class Target:
    """A server and the files that are sent to it in turn."""

    def __init__(
        self,
        port: int,
        path: str,
        headers: dict[str, str],
        files: Sequence[bytes],
        *,
        size: tuple[int, int],
        timeout_s: float,
    ) -> None:
        """Args: `size` is the width and height that masks must have; a client gives up after `timeout_s`."""
        self._pool = Pool(port)
        self._requests: Iterator[tuple[bytes, bytes]] = cycle(
            [(request_head(path, headers, len(file)), file) for file in files]
        )
        self._size = size
        self._timeout_s = timeout_s
        self._start = time.perf_counter()

    @property
    def now_s(self) -> float:
        """Seconds since this object was created."""
        return time.perf_counter() - self._start

    async def request(self, due_s: float) -> Sample:
        """Send one request and wait for its response until `timeout_s` after `due_s`."""
        timing, retry_s = "", DEFAULT_RETRY_S
        try:
            async with asyncio.timeout(max(0.0, due_s + self._timeout_s - self.now_s)):
                response = await self._pool.request(next(self._requests))
            outcome, timing = self._outcome(response), response.headers.get("server-timing", "")
            retry_after = response.headers.get("retry-after", "")
            retry_s = float(retry_after) if retry_after.isdigit() else DEFAULT_RETRY_S
        except TimeoutError:
            outcome = TIMED_OUT
        except OSError:
            outcome = DISCONNECTED
        return Sample(due_s, self.now_s, outcome, timing, retry_s)

    def _outcome(self, response: Response) -> str:
        if response.status != 200:
            return str(response.status)
        return OK if png_size(response.png) == self._size else INVALID_MASK

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


def poisson_times(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Return the arrival times of a Poisson process in seconds; the same for the same seed."""
    generator, times, time_s = random.Random(seed), [], 0.0  # noqa: S311 (not cryptography)
    while (time_s := time_s + generator.expovariate(rate_per_s)) < seconds:
        times.append(time_s)
    return times


async def closed_loop(target: Target, clients: int, seconds: float, *, stop_below_s: float = 0.0) -> list[Sample]:
    """Run clients that each send the next request when the previous one is answered.

    Args:
        target: The server.
        clients: Number of concurrent clients.
        seconds: How long new requests are sent.
        stop_below_s: Stop at the first mask with a lower latency.
    """
    samples: list[Sample] = []
    stop = asyncio.Event()

    async def client() -> None:
        while target.now_s < seconds and not stop.is_set():
            sample = await target.request(target.now_s)
            samples.append(sample)
            if sample.outcome != OK:
                await asyncio.sleep(sample.retry_s)
            elif sample.latency_s < stop_below_s:
                stop.set()

    await asyncio.gather(*(client() for _ in range(clients)))
    return samples


async def open_loop(target: Target, rate_per_s: float, seconds: float, seed: int) -> list[Sample]:
    """Send requests at Poisson arrival times, whether or not earlier ones are answered."""
    tasks = []
    for due_s in poisson_times(rate_per_s, seconds, seed):
        await asyncio.sleep(max(0.0, due_s - target.now_s))
        tasks.append(asyncio.create_task(target.request(due_s)))
    return list(await asyncio.gather(*tasks))
