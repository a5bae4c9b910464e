"""Five times as many requests as it can answer, for a while: what becomes of them, of the probes, and after it."""

import asyncio
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median

from tests.benchmarks.serving.figures import percentile, timing_entries
from tests.benchmarks.serving.loads import OK, Sample, closed_loop, open_loop
from tests.soak.service import Service

CLIENTS = 8
TIMES = 5
PROBE_EVERY_S = 0.05
LONE_S = 3.0
LATE = 2.0
"""A request is back to normal when it takes no more than this times what a lone one took before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overload:
    """What was seen."""

    capacity_per_s: float
    """Masks a second in a closed loop, the median of those around the turns."""
    outcomes: dict[str, int]
    goodput_ratio: float
    """Masks a second under overload, of the capacity beside that turn: the median."""
    p99_s: float
    """Of what was accepted."""
    bound_s: float
    """The longest wait for a turn, and the 99th percentile of what the work took in the closed loops beside."""
    grown_bytes: int
    """Resident memory: at the last turn's end less what it was after the first closed loop."""
    recovered_s: float
    """After the last request of a turn was sent, until one takes as long as before: the longest."""
    probe_p99_ms: float
    """GET /livez meanwhile."""
    probe_worst_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """One stretch of overload."""

    samples: list[Sample]
    masks_per_s: float
    recovered_s: float
    probes_s: list[float]


def overload(
    service: Service, files: list[bytes], size: tuple[int, int], *, longest_wait_s: float, seconds: float, turns: int
) -> Overload:
    """Measure the capacity for so long, then, so many times, offer TIMES that for so long and measure it again.

    A machine that changes its speed within minutes is as fast beside a turn as in it.

    Args:
        service: Whom to ask.
        files: To be segmented.
        size: Width and height of each.
        longest_wait_s: Its MASKLOOP_MAX_WAIT_S.
        seconds: Of each part.
        turns: Of overload.
    """
    return asyncio.run(_Load(service, files, size, seconds).overload(longest_wait_s, turns))


@dataclass(frozen=True, slots=True)
class _Load:
    """Whom it is put on, and for how long at a time."""

    service: Service
    files: list[bytes]
    size: tuple[int, int]
    seconds: float

    async def overload(self, longest_wait_s: float, turns: int) -> Overload:
        closed = [await self._closed(CLIENTS, self.seconds)]
        before_bytes = self.service.memory_bytes
        seen: list[_Turn] = []
        for seed in range(turns):
            lone = await self._closed(1, min(self.seconds, LONE_S))
            usual_s = percentile([sample.latency_s for sample in lone], 50)
            seen.append(await self._turn(TIMES * len(closed[-1]) / self.seconds, seed, usual_s))
            grown_bytes = self.service.memory_bytes - before_bytes
            closed.append(await self._closed(CLIENTS, self.seconds))
        capacities = [len(each) / self.seconds for each in closed]
        samples = [sample for turn in seen for sample in turn.samples]
        accepted = [sample for sample in samples if sample.outcome == OK]
        probes_s = [probe_s for turn in seen for probe_s in turn.probes_s]
        beside = [mean(pair) for pair in pairwise(capacities)]
        return Overload(
            capacity_per_s=median(capacities),
            outcomes=dict(Counter(sample.outcome for sample in samples).most_common()),
            goodput_ratio=median(turn.masks_per_s / capacity for turn, capacity in zip(seen, beside, strict=True)),
            p99_s=percentile([sample.latency_s for sample in accepted], 99),
            bound_s=longest_wait_s + percentile([_worked_s(sample) for each in closed for sample in each], 99),
            grown_bytes=grown_bytes,
            recovered_s=max(turn.recovered_s for turn in seen),
            probe_p99_ms=1000 * percentile(probes_s, 99),
            probe_worst_ms=1000 * max(probes_s),
        )

    async def _turn(self, rate_per_s: float, seed: int, usual_s: float) -> _Turn:
        target = self.service.target(self.files, self.size)
        probing = asyncio.create_task(_probe(self.service))
        samples = await open_loop(target, rate_per_s, self.seconds, seed)
        probing.cancel()
        target.close()
        sent_until = max(sample.due_s for sample in samples)
        late_s = max(0.0, max(sample.done_s for sample in samples) - sent_until)
        return _Turn(
            samples=samples,
            masks_per_s=sum(sample.outcome == OK and sample.done_s < sent_until for sample in samples) / sent_until,
            recovered_s=late_s + await self._normal_again(usual_s),
            probes_s=await _finished(probing),
        )

    async def _closed(self, clients: int, seconds: float) -> list[Sample]:
        """The masks of a closed loop that came in time."""
        target = self.service.target(self.files, self.size)
        try:
            samples = await closed_loop(target, clients, seconds)
        finally:
            target.close()
        return [sample for sample in samples if sample.outcome == OK and sample.done_s < seconds]

    async def _normal_again(self, usual_s: float) -> float:
        began, target = time.perf_counter(), self.service.target(self.files, self.size)
        try:
            await closed_loop(target, 1, 20.0, stop_below_s=LATE * usual_s)
        finally:
            target.close()
        return time.perf_counter() - began


def _worked_s(sample: Sample) -> float:
    """What the service says that decoding, inference and encoding took, with the wait for one of their threads."""
    return sum(ms for stage, [ms] in timing_entries([sample]).items() if stage != "queue") / 1000


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
