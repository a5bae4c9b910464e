"""What became of requests, in the form that Triton's tools read.

A request of several images counts once in `inference_stats`, with the sum of their times; its `queue` is over when the
first of them has its turn. `inference_count` counts images, `execution_count` runs of the graph.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from service.errors import MaskloopError

STAGES = ("queue", "compute_input", "compute_infer", "compute_output")
OUTCOMES = ("success", "fail", *STAGES, "cache_hit", "cache_miss")
COMPUTE = STAGES[1:]


@dataclass(slots=True)
class Duration:
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        """Once more."""
        self.count += count
        self.ns += int(seconds * 1e9)

    def out(self) -> dict[str, int]:
        """As JSON."""
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class Spent:
    """What a request took, filled in while it is served. Seconds by stage."""

    images: int = 0
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure something, and add it to a stage."""
        begin = time.perf_counter()
        yield
        self.stages[name] += time.perf_counter() - begin


@dataclass(slots=True)
class _Counts:
    images: int = 0
    last_ms: int = 0
    outcomes: dict[str, Duration] = field(default_factory=lambda: {name: Duration() for name in OUTCOMES})
    runs: dict[str, Duration] = field(default_factory=lambda: {name: Duration() for name in COMPUTE})

    def succeed(self, spent: Spent, seconds: float) -> None:
        self.images += spent.images
        self.last_ms = int(time.time() * 1000)
        self.outcomes["success"].add(seconds)
        for stage, took_s in spent.stages.items():
            self.outcomes[stage].add(took_s)
        for stage in COMPUTE:
            self.runs[stage].add(spent.stages[stage], spent.images)

    def out(self, model: str, version: int) -> dict[str, Any]:
        one = {"batch_size": 1} | {stage: duration.out() for stage, duration in self.runs.items()}
        return {
            "name": model,
            "version": str(version),
            "last_inference": self.last_ms,
            "inference_count": self.images,
            # One image a run.
            "execution_count": self.images,
            "inference_stats": {name: duration.out() for name, duration in self.outcomes.items()},
            "response_stats": {},
            "batch_stats": [one] if self.images else [],
            "memory_usage": [],
        }


class Statistics:
    """Counts by model and version, since the process began. Belongs to one event loop."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], _Counts] = {}

    @contextmanager
    def request(self, model: str, version: int) -> Iterator[Spent]:
        """Count what happens within the block: a success, or by the error that leaves it a failure."""
        spent, begin = Spent(), time.perf_counter()
        counts = self._counts.setdefault((model, version), _Counts())
        try:
            yield spent
        except MaskloopError:
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
