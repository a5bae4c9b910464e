"""Five times as many requests as it can answer, for a while: what becomes of them, of the probes, and after it."""

import asyncio
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass

from tests.benchmarks.serving.figures import percentile, timing_entries
from tests.benchmarks.serving.loads import OK, Sample, closed_loop, open_loop
from tests.soak.service import Service

CLIENTS = 8
TIMES = 5
PROBE_EVERY_S = 0.05
LATE = 2.0
"""A request is back to normal when it takes no more than this times what a lone one took before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overload:
    """What was seen."""

    capacity_per_s: float
    """Masks a second in a closed loop, before and after."""
    outcomes: dict[str, int]
    goodput_ratio: float
    """Masks a second under overload, of the capacity."""
    p99_s: float
    """Of what was accepted."""
    bound_s: float
    """The longest wait, and the 99th percentile of what decoding, inference and encoding took meanwhile."""
    grown_bytes: int
    """Resident memory: its end less what it was after the closed loop."""
    recovered_s: float
    """After the last request was sent, until one takes as long as before."""
    probe_p99_ms: float
    """GET /livez meanwhile."""
    probe_worst_ms: float


def overload(
    service: Service, files: list[bytes], size: tuple[int, int], *, longest_wait_s: float, seconds: float
) -> Overload:
    """Measure the capacity for so long, offer TIMES that for so long, and measure it again.

    Args:
        service: Whom to ask.
        files: To be segmented.
        size: Width and height of each.
        longest_wait_s: Its MASKLOOP_MAX_WAIT_S.
        seconds: Of each part.
    """
    return asyncio.run(_overload(service, files, size, longest_wait_s, seconds))


async def _overload(
    service: Service, files: list[bytes], size: tuple[int, int], longest_wait_s: float, seconds: float
) -> Overload:
    lone = [sample.latency_s for sample in await _closed(service, files, size, 1, min(seconds, 5.0))]
    usual_s = percentile(lone, 50)
    before_per_s = await _capacity(service, files, size, seconds)
    before_bytes = service.memory_bytes
    target = service.target(files, size)
    probing = asyncio.create_task(_probe(service))
    samples = await open_loop(target, TIMES * before_per_s, seconds, seed=0)
    probing.cancel()
    target.close()
    accepted = [sample for sample in samples if sample.outcome == OK]
    sent_until = max(sample.due_s for sample in samples)
    recovered_s = max(0.0, max(sample.done_s for sample in samples) - sent_until)
    recovered_s += await _normal_again(service, files, size, usual_s)
    probes = await _finished(probing)
    grown_bytes = service.memory_bytes - before_bytes
    # Before and after: machines change their speed within minutes.
    capacity = (before_per_s + await _capacity(service, files, size, seconds)) / 2
    return Overload(
        capacity_per_s=capacity,
        outcomes=dict(Counter(sample.outcome for sample in samples).most_common()),
        goodput_ratio=sum(sample.done_s < sent_until for sample in accepted) / sent_until / capacity,
        p99_s=percentile([sample.latency_s for sample in accepted], 99),
        bound_s=longest_wait_s + percentile([_worked_s(sample) for sample in accepted], 99),
        grown_bytes=grown_bytes,
        recovered_s=recovered_s,
        probe_p99_ms=1000 * percentile(probes, 99),
        probe_worst_ms=1000 * max(probes),
    )


async def _capacity(service: Service, files: list[bytes], size: tuple[int, int], seconds: float) -> float:
    return len(await _closed(service, files, size, CLIENTS, seconds)) / seconds


async def _closed(
    service: Service, files: list[bytes], size: tuple[int, int], clients: int, seconds: float
) -> list[Sample]:
    """The masks of a closed loop that came in time."""
    target = service.target(files, size)
    try:
        samples = await closed_loop(target, clients, seconds)
    finally:
        target.close()
    return [sample for sample in samples if sample.outcome == OK and sample.done_s < seconds]


def _worked_s(sample: Sample) -> float:
    """What the service says that it took, without the wait for a turn."""
    return sum(ms for stage, [ms] in timing_entries([sample]).items() if stage != "queue") / 1000


async def _normal_again(service: Service, files: list[bytes], size: tuple[int, int], usual_s: float) -> float:
    began, target = time.perf_counter(), service.target(files, size)
    try:
        await closed_loop(target, 1, 20.0, stop_below_s=LATE * usual_s)
    finally:
        target.close()
    return time.perf_counter() - began


async def _probe(service: Service) -> list[float]:
    """Seconds that a probe takes, one after the other until it is cancelled."""
    took: list[float] = []
    try:
        while True:
            began = time.perf_counter()
            answer = await _livez(service.port)
            if b" 200 " not in answer[:20]:
                raise AssertionError(f"/livez said {answer[:100]!r}")
            took.append(time.perf_counter() - began)
            await asyncio.sleep(PROBE_EVERY_S)
    except asyncio.CancelledError:
        return took


async def _livez(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return await reader.read()


async def _finished(probing: asyncio.Task[list[float]]) -> list[float]:
    return await probing
