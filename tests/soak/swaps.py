"""Model swaps under load, and the activation of a broken version."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.serving.loads import Sample, closed_loop
from tests.soak.service import Service

CLIENTS = 4
SWAP_TIMEOUT_S = 60.0
LOAD_TURN_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Swaps:
    """Results of the swaps."""

    cycles: int
    outcomes: dict[str, int]
    """Outcomes of the requests during the swaps."""
    grown_bytes: int
    """Resident memory after the last cycle minus that after a fifth of the cycles."""
    active: str
    """The version that answers after the broken one was activated."""
    error: str
    """The error that /v1/models reports for it."""


def swaps(
    service: Service, versions: tuple[str, str], broken: str, files: list[bytes], size: tuple[int, int], *, cycles: int
) -> Swaps:
    """Activate two versions in turn, and the broken one at the end.

    Args:
        service: A service that has all versions.
        versions: Two valid versions; the second is active at the end if `cycles` is even.
        broken: A version that cannot be loaded.
        files: Images to send during the swaps.
        size: Width and height of each image.
        cycles: Number of swaps.
    """

    async def run() -> Swaps:
        stop, memory = asyncio.Event(), list[int]()
        load = asyncio.create_task(_load(service, files, size, stop))
        for cycle in range(cycles):
            await _swap(service, versions[cycle % 2])
            memory.append(service.memory_bytes)
        await asyncio.to_thread(_activate, service, broken, 409)
        models = await _until(lambda models: models["error"] is not None, service)
        _, headers, _ = await asyncio.to_thread(service.request, "POST", "/v1/segment", files[0])
        stop.set()
        outcomes = Counter(sample.outcome for sample in await load)
        return Swaps(
            cycles=cycles,
            outcomes=dict(outcomes.most_common()),
            grown_bytes=memory[-1] - memory[cycles // 5],
            active=headers["x-model-version"],
            error=models["error"],
        )

    return asyncio.run(run())


async def _swap(service: Service, version: str) -> None:
    await asyncio.to_thread(_activate, service, version, 200)


async def _load(service: Service, files: list[bytes], size: tuple[int, int], stop: asyncio.Event) -> list[Sample]:
    """Run closed loops until `stop` is set."""
    target, samples = service.target(files, size), list[Sample]()
    try:
        while not stop.is_set():
            samples += await closed_loop(target, CLIENTS, target.now_s + LOAD_TURN_S)
    finally:
        target.close()
    return samples


def _activate(service: Service, version: str, expected: int) -> None:
    status, _, body = service.request("POST", f"/v1/models/{version}/activate?wait_s={SWAP_TIMEOUT_S:g}")
    if status != expected:
        raise AssertionError(f"activating {version}: {status} {body!r}")


async def _until(condition: Callable[[dict[str, Any]], bool], service: Service) -> dict[str, Any]:
    """Poll /v1/models until its response meets the condition; return it."""
    async with asyncio.timeout(SWAP_TIMEOUT_S):
        while True:
            models: dict[str, Any] = json.loads((await asyncio.to_thread(service.request, "GET", "/v1/models"))[2])
            if condition(models):
                return models
            await asyncio.sleep(0.02)
