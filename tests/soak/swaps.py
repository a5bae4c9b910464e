"""One version after the other goes into service, under load; and one that cannot."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.serving.loads import Sample, closed_loop
from tests.soak.service import Service

CLIENTS = 4
SWAP_LIMIT_S = 60.0
LOOK_EVERY_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Swaps:
    """What was seen."""

    cycles: int
    outcomes: dict[str, int]
    """Of the requests meanwhile."""
    grown_bytes: int
    """Resident memory from the end of the fifth part of the cycles to the last."""
    serves: str
    """The version that answers after a broken one was asked for."""
    error: str
    """What /v1/models says of that."""


def swaps(
    service: Service, versions: tuple[str, str], broken: str, files: list[bytes], size: tuple[int, int], *, cycles: int
) -> Swaps:
    """Activate one of two versions after the other, so many times, and the broken one at the end.

    Args:
        service: That has them all.
        versions: Two that serve; where `cycles` is even, the second answers in the end.
        broken: One that no longer loads.
        files: To be segmented meanwhile.
        size: Width and height of each.
        cycles: How often.
    """

    async def scene() -> Swaps:
        over, memory = asyncio.Event(), list[int]()
        load = asyncio.create_task(_load(service, files, size, over))
        for cycle in range(cycles):
            await _swap(service, versions[cycle % 2])
            memory.append(service.memory_bytes)
        await asyncio.to_thread(_activate, service, broken)
        said = await _until(lambda said: said["error"] is not None, service)
        _, headers, _ = await asyncio.to_thread(service.ask, "POST", "/v1/segment", files[0])
        over.set()
        outcomes = Counter(sample.outcome for sample in await load)
        return Swaps(
            cycles=cycles,
            outcomes=dict(outcomes.most_common()),
            grown_bytes=memory[-1] - memory[cycles // 5],
            serves=headers["x-model-version"],
            error=said["error"],
        )

    return asyncio.run(scene())


async def _swap(service: Service, version: str) -> None:
    await asyncio.to_thread(_activate, service, version)
    await _until(lambda said: said["serving"] == version, service)


async def _load(service: Service, files: list[bytes], size: tuple[int, int], over: asyncio.Event) -> list[Sample]:
    """Clients that go on until it is over."""
    target, samples = service.target(files, size), list[Sample]()
    try:
        while not over.is_set():
            samples += await closed_loop(target, CLIENTS, target.now_s + LOOK_EVERY_S)
    finally:
        target.close()
    return samples


def _activate(service: Service, version: str) -> None:
    status, _, body = service.ask("POST", f"/v1/models/{version}/activate")
    if status != 200:
        raise AssertionError(f"activating {version}: {status} {body!r}")


async def _until(condition: Callable[[dict[str, Any]], bool], service: Service) -> dict[str, Any]:
    """Wait for something that /v1/models says."""
    async with asyncio.timeout(SWAP_LIMIT_S):
        while True:
            said: dict[str, Any] = json.loads((await asyncio.to_thread(service.ask, "GET", "/v1/models"))[2])
            if condition(said):
                return said
            await asyncio.sleep(0.02)
