"""Overload: five times the capacity; measures responses, health checks and recovery."""

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
SINGLE_CLIENT_S = 3.0
RECOVERED = 2.0
"""The service has recovered when the latency of a single client is at most this multiple of what it was before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overload:
    """Results over all turns."""

    capacity_per_s: float
    """Masks per second in a closed loop: median over the loops before and after the turns."""
    outcomes: dict[str, int]
    goodput_ratio: float
    """Masks per second under overload divided by the capacity around that turn: median."""
    p99_s: float
    """Latency of the accepted requests."""
    bound_s: float
    """Upper bound of p99_s: maximum queueing time plus the p99 of the processing time in the closed loops."""
    grown_bytes: int
    """Resident memory after the last turn minus that after the first closed loop."""
    recovered_s: float
    """Longest time from the last request of a turn until the service recovered."""
    probe_p99_ms: float
    """Latency of GET /livez during the overload."""
    probe_worst_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """Results of one turn."""

    samples: list[Sample]
    masks_per_s: float
    recovered_s: float
    probes_s: list[float]


def overload(
    service: Service, files: list[bytes], size: tuple[int, int], *, max_wait_s: float, seconds: float, turns: int
) -> Overload:
    """Measure the capacity, then alternate turns at TIMES the capacity with new measurements of it.

    The machine's speed changes within minutes, so each turn is compared with the capacity just before and after it.

    Args:
        service: The service.
        files: Images to send.
        size: Width and height of each image.
        max_wait_s: The service's setting MASKLOOP_MAX_WAIT_S.
        seconds: Duration of each turn and each measurement of the capacity.
        turns: Number of turns.
    """
    return asyncio.run(_Load(service, files, size, seconds).overload(max_wait_s, turns))


@dataclass(frozen=True, slots=True)
class _Load:
    """The service, the images, and the duration of each part."""

    service: Service
    files: list[bytes]
    size: tuple[int, int]
    seconds: float

    async def overload(self, max_wait_s: float, turns: int) -> Overload:
        closed = [await self._closed(CLIENTS, self.seconds)]
        before_bytes = self.service.memory_bytes
        seen: list[_Turn] = []
        for seed in range(turns):
            single = await self._closed(1, min(self.seconds, SINGLE_CLIENT_S))
            usual_s = percentile([sample.latency_s for sample in single], 50)
            seen.append(await self._turn(TIMES * len(closed[-1]) / self.seconds, seed, usual_s))
            grown_bytes = self.service.memory_bytes - before_bytes
            closed.append(await self._closed(CLIENTS, self.seconds))
        capacities = [len(each) / self.seconds for each in closed]
        samples = [sample for turn in seen for sample in turn.samples]
        accepted = [sample for sample in samples if sample.outcome == OK]
        probes_s = [probe_s for turn in seen for probe_s in turn.probes_s]
        around = [mean(pair) for pair in pairwise(capacities)]
        return Overload(
            capacity_per_s=median(capacities),
            outcomes=dict(Counter(sample.outcome for sample in samples).most_common()),
            goodput_ratio=median(turn.masks_per_s / capacity for turn, capacity in zip(seen, around, strict=True)),
            p99_s=percentile([sample.latency_s for sample in accepted], 99),
            bound_s=max_wait_s + percentile([_processing_s(sample) for each in closed for sample in each], 99),
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
            recovered_s=late_s + await self._recovery_s(usual_s),
            probes_s=await probing,
        )

    async def _closed(self, clients: int, seconds: float) -> list[Sample]:
        """Run a closed loop; return the samples of masks that arrived in time."""
        target = self.service.target(self.files, self.size)
        try:
            samples = await closed_loop(target, clients, seconds)
        finally:
            target.close()
        return [sample for sample in samples if sample.outcome == OK and sample.done_s < seconds]

    async def _recovery_s(self, usual_s: float) -> float:
        start, target = time.perf_counter(), self.service.target(self.files, self.size)
        try:
            await closed_loop(target, 1, 20.0, stop_below_s=RECOVERED * usual_s)
        finally:
            target.close()
        return time.perf_counter() - start


def _processing_s(sample: Sample) -> float:
    """Server-Timing of decoding, inference and encoding, including the wait for a thread."""
    return sum(ms for stage, [ms] in timing_entries([sample]).items() if stage != "queue") / 1000


async def _probe(service: Service) -> list[float]:
    """Send GET /livez until cancelled; return the latencies in seconds."""
    latencies: list[float] = []
    try:
        while True:
            start = time.perf_counter()
            answer = await _livez(service.port)
            if b" 200 " not in answer[:20]:
                raise AssertionError(f"/livez returned {answer[:100]!r}")
            latencies.append(time.perf_counter() - start)
            await asyncio.sleep(PROBE_EVERY_S)
    except asyncio.CancelledError:
        return latencies


async def _livez(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return await reader.read()
