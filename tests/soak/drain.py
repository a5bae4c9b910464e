"""Graceful shutdown: SIGTERM while requests are in progress."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

from tests.soak.service import Service


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    """Results of a shutdown."""

    accepted: int
    outcomes: dict[str, int]
    """Outcomes of the requests that were accepted before the signal."""
    refused: bool
    """Whether a connection after the signal was refused."""
    exit_code: int
    ended_s: float
    """Seconds from the signal until the process ended."""


def drain(service: Service, files: list[bytes], size: tuple[int, int], *, requests: int) -> Drain:
    """Send requests at once, wait until all are admitted, and send SIGTERM."""
    return asyncio.run(_drain(service, files, size, requests))


async def _drain(service: Service, files: list[bytes], size: tuple[int, int], requests: int) -> Drain:
    target = service.target(files, size)
    tasks = [asyncio.create_task(target.request(target.now_s)) for _ in range(requests)]
    while await asyncio.to_thread(_admitted, service) + sum(task.done() for task in tasks) < requests:
        pass
    start = time.perf_counter()
    service.terminate()
    # uvicorn closes the socket when it next checks for the signal, long before the last response.
    await asyncio.sleep(0.3)
    refused = await _is_refused(service)
    done = await asyncio.gather(*tasks)
    code = await asyncio.to_thread(service.process.wait, 60)
    target.close()
    return Drain(
        accepted=requests,
        outcomes=dict(Counter(sample.outcome for sample in done).most_common()),
        refused=refused,
        exit_code=code,
        ended_s=time.perf_counter() - start,
    )


def _admitted(service: Service) -> int:
    """Number of admitted requests without a response yet."""
    return int(service.metric("maskloop_segment_admitted"))


async def _is_refused(service: Service) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False
