"""What became of requests, in the form that Triton's tools read.

A request counts once in `inference_stats`, with the times of all its images; its `queue` is over when the first of them
has its turn. `inference_count` counts images, and `execution_count` runs of the graph: on a GPU, images of one size go
through it together, and each has its share in such a run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from service.segmentation.admission.request_context import RequestContext

COMPUTE = {"compute_input": "decode", "compute_infer": "infer", "compute_output": "encode"}
"""Triton's stages, and the segmenter's."""
STAGES = ("queue", *COMPUTE)
OUTCOMES = ("success", "fail", *STAGES, "cache_hit", "cache_miss")


@dataclass(slots=True)
class Duration:
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Once more."""
        self.count += 1
        self.ns += int(seconds * 1e9)

    def out(self) -> dict[str, int]:
        """As JSON."""
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class Spent:
    """What a request took, filled in while it is served. Seconds by stage."""

    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    visits: Sequence[RequestContext] = ()
    """Of its images."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure something, and add it to a stage."""
        begin = time.perf_counter()
        yield
        self.stages[name] += time.perf_counter() - begin

    def on(self, visits: Sequence[RequestContext]) -> None:
        """Add what its images took."""
        self.visits = visits
        self.stages["queue"] = min(visit.seconds["queue"] for visit in visits)
        for visit in visits:
            for stage, ours in COMPUTE.items():
                # Images of one request that went together took this time together.
                together = min(visit.batch, len(visits)) if ours == "infer" else 1
                self.stages[stage] += visit.seconds.get(ours, 0.0) / together


@dataclass(slots=True)
class _Runs:
    """Of so many images each."""

    images: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMPUTE, 0.0))

    def add(self, visit: RequestContext) -> None:
        self.images += 1
        for stage, ours in COMPUTE.items():
            self.seconds[stage] += visit.seconds.get(ours, 0.0) / (visit.batch if ours == "infer" else 1)

    def count(self, size: int) -> int:
        return -(-self.images // size)

    def out(self, size: int) -> dict[str, Any]:
        durations = {stage: Duration(self.count(size), int(s * 1e9)).out() for stage, s in self.seconds.items()}
        return {"batch_size": size} | durations


@dataclass(slots=True)
class _Counts:
    last_ms: int = 0
    outcomes: dict[str, Duration] = field(default_factory=lambda: {name: Duration() for name in OUTCOMES})
    runs: dict[int, _Runs] = field(default_factory=dict)
    """By how many images went together."""

    def succeed(self, spent: Spent, seconds: float) -> None:
        self.last_ms = int(time.time() * 1000)
        self.outcomes["success"].add(seconds)
        for stage, took_s in spent.stages.items():
            self.outcomes[stage].add(took_s)
        for visit in spent.visits:
            self.runs.setdefault(visit.batch, _Runs()).add(visit)

    def out(self, model: str, version: int) -> dict[str, Any]:
        runs = sorted(self.runs.items())
        return {
            "name": model,
            "version": str(version),
            "last_inference": self.last_ms,
            "inference_count": sum(run.images for _, run in runs),
            "execution_count": sum(run.count(size) for size, run in runs),
            "inference_stats": {name: duration.out() for name, duration in self.outcomes.items()},
            "response_stats": {},
            "batch_stats": [run.out(size) for size, run in runs],
            "memory_usage": [],
        }


class Statistics:
    """Counts by model and version, since the process began. Belongs to one event loop."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], _Counts] = {}

    @contextmanager
    def request(self, model: str, version: int) -> Iterator[Spent]:
        """Count what happens within the block: a success, or a failure if an error leaves it."""
        spent, begin = Spent(), time.perf_counter()
        counts = self._counts.setdefault((model, version), _Counts())
        try:
            yield spent
        except Exception:
            counts.outcomes["fail"].add(time.perf_counter() - begin)
            raise
        counts.succeed(spent, time.perf_counter() - begin)

    def out(self, versions: list[tuple[str, int]], model: str | None, version: int | None) -> dict[str, Any]:
        """The statistics of some versions, and of those with any counts, of one model and version or of all."""
        asked = sorted(
            (name, number)
            for name, number in {*versions, *self._counts}
            if model in (None, name) and version in (None, number)
        )
        return {"model_stats": [self._counts.get(key, _Counts()).out(*key) for key in asked]}
