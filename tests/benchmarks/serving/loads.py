"""Load: closed loops of clients that wait for their answer, and open ones that come whether or not it is there."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

from tests.benchmarks.serving.connections import Pool
from tests.benchmarks.serving.http1 import NotHttp, Response, png_size, request_head

OK, GAVE_UP, CUT_OFF, NO_MASK = "200", "gave up", "cut off", "no mask"

# A client that was refused comes back after so long, where it was not told when.
RETRY_S = 0.1


class Sample(NamedTuple):
    """One request. Times are seconds since the load began."""

    due_s: float
    """When it was to be sent."""
    done_s: float
    outcome: str
    """OK, another status, or one of the above."""
    timing: str
    """The Server-Timing header."""
    retry_s: float = RETRY_S
    """After how long a client that was refused comes back: as the Retry-After header says."""

    @property
    def latency_s(self) -> float:
        """From when it was to be sent, so that a late start counts."""
        return self.done_s - self.due_s


class Target:
    """A server, and what is sent to it: files in turn."""

    def __init__(
        self,
        port: int,
        path: str,
        headers: dict[str, str],
        files: Sequence[bytes],
        *,
        size: tuple[int, int],
        patience_s: float,
    ) -> None:
        """Args: `size` is the width and height that masks must have; after `patience_s` a client gives up."""
        self._pool = Pool(port)
        self._requests: Iterator[tuple[bytes, bytes]] = cycle(
            [(request_head(path, headers, len(file)), file) for file in files]
        )
        self._size = size
        self._patience_s = patience_s
        self._began = time.perf_counter()

    @property
    def now_s(self) -> float:
        """Seconds since this was made."""
        return time.perf_counter() - self._began

    async def ask(self, due_s: float) -> Sample:
        """Send one request, which was due then, and wait for its answer or until patience ends."""
        timing, retry_s = "", RETRY_S
        try:
            async with asyncio.timeout(max(0.0, due_s + self._patience_s - self.now_s)):
                response = await self._pool.ask(next(self._requests))
            outcome, timing = self._judge(response), response.headers.get("server-timing", "")
            told = response.headers.get("retry-after", "")
            retry_s = float(told) if told.isdigit() else RETRY_S
        except TimeoutError:
            outcome = GAVE_UP
        except (OSError, NotHttp):
            outcome = CUT_OFF
        return Sample(due_s, self.now_s, outcome, timing, retry_s)

    def _judge(self, response: Response) -> str:
        if response.status != 200:
            return str(response.status)
        return OK if png_size(response.png) == self._size else NO_MASK

    def close(self) -> None:
        """Hang up."""
        self._pool.close()


def poisson_times(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """When requests come that know nothing of each other: exponential gaps, the same for the same seed."""
    draw, times, at = random.Random(seed), [], 0.0  # noqa: S311 - no secret
    while (at := at + draw.expovariate(rate_per_s)) < seconds:
        times.append(at)
    return times


async def closed_loop(target: Target, clients: int, seconds: float, *, stop_below_s: float = 0.0) -> list[Sample]:
    """Clients that each send their next request when the last one is answered, for so long.

    Args:
        target: Whom they ask.
        clients: How many.
        seconds: For how long new requests are sent.
        stop_below_s: End with the first mask that took less.
    """
    samples: list[Sample] = []
    enough = asyncio.Event()

    async def client() -> None:
        while target.now_s < seconds and not enough.is_set():
            sample = await target.ask(target.now_s)
            samples.append(sample)
            if sample.outcome != OK:
                await asyncio.sleep(sample.retry_s)
            elif sample.latency_s < stop_below_s:
                enough.set()

    await asyncio.gather(*(client() for _ in range(clients)))
    return samples


async def open_loop(target: Target, rate_per_s: float, seconds: float, seed: int) -> list[Sample]:
    """Requests at times of their own, whatever has become of those before."""
    under_way = []
    for due_s in poisson_times(rate_per_s, seconds, seed):
        await asyncio.sleep(max(0.0, due_s - target.now_s))
        under_way.append(asyncio.create_task(target.ask(due_s)))
    return list(await asyncio.gather(*under_way))
