"""SIGTERM while requests are under way: those are answered, later ones are refused, and it ends."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

from tests.soak.service import Service


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    """What was seen."""

    accepted: int
    outcomes: dict[str, int]
    """Of those that were accepted before the signal."""
    refused: bool
    """Whether one that came after it was."""
    exit_code: int
    ended_s: float
    """After the signal."""


def drain(service: Service, files: list[bytes], size: tuple[int, int], *, requests: int) -> Drain:
    """Send so many requests at once, wait until all are inside, and end the service."""
    return asyncio.run(_drain(service, files, size, requests))


async def _drain(service: Service, files: list[bytes], size: tuple[int, int], requests: int) -> Drain:
    target = service.target(files, size)
    under_way = [asyncio.create_task(target.ask(target.now_s)) for _ in range(requests)]
    while await asyncio.to_thread(_inside, service) + sum(task.done() for task in under_way) < requests:
        pass
    began = time.perf_counter()
    service.terminate()
    # The socket closes within a look of uvicorn's at the signal, and long before the last answer.
    await asyncio.sleep(0.3)
    refused = await _is_refused(service)
    done = await asyncio.gather(*under_way)
    code = await asyncio.to_thread(service.process.wait, 60)
    target.close()
    return Drain(
        accepted=requests,
        outcomes=dict(Counter(sample.outcome for sample in done).most_common()),
        refused=refused,
        exit_code=code,
        ended_s=time.perf_counter() - began,
    )


def _inside(service: Service) -> int:
    """Segmentations that were admitted and are not answered."""
    return int(service.metric("maskloop_segment_admitted"))


async def _is_refused(service: Service) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False
