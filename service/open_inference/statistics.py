"""Statistics of inference requests, in the format of Triton's tools.

`inference_stats` counts each request once, with the times of all its images; `queue` ends when its first image starts.
`inference_count` counts images, `execution_count` runs of the graph, which images of one size share on a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from service.segmentation.admission.request_context import RequestContext

COMPUTE_STAGES = {"compute_input": "decode", "compute_infer": "infer", "compute_output": "encode"}
"""Triton's stages, and those of the pipeline."""
STAGES = ("queue", *COMPUTE_STAGES)
COUNTERS = ("success", "fail", *STAGES, "cache_hit", "cache_miss")


@dataclass(slots=True)
class Duration:
    """Number of events and their total duration."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Add one event."""
        self.count += 1
        self.ns += int(seconds * 1e9)

    def to_json(self) -> dict[str, int]:
        """Return the JSON object."""
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class RequestTimings:
    """Timings of one request; seconds by stage."""

    version: int
    """Number of the version that answers it."""
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    contexts: Sequence[RequestContext] = ()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the duration of the block to a stage."""
        begin = time.perf_counter()
        yield
        self.stages[name] += time.perf_counter() - begin

    def add_images(self, contexts: Sequence[RequestContext]) -> None:
        """Add the timings of the images."""
        self.contexts = contexts
        self.stages["queue"] = min(context.seconds["queue"] for context in contexts)
        for context in contexts:
            for stage, pipeline_stage in COMPUTE_STAGES.items():
                # Images of one request that shared a run also shared its time.
                shared = min(context.batch, len(contexts)) if pipeline_stage == "infer" else 1
                self.stages[stage] += context.seconds.get(pipeline_stage, 0.0) / shared


@dataclass(slots=True)
class _BatchStats:
    images: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMPUTE_STAGES, 0.0))

    def add(self, context: RequestContext) -> None:
        self.images += 1
        for stage, pipeline_stage in COMPUTE_STAGES.items():
            shared = context.batch if pipeline_stage == "infer" else 1
            self.seconds[stage] += context.seconds.get(pipeline_stage, 0.0) / shared

    def runs(self, batch_size: int) -> int:
        return -(-self.images // batch_size)

    def to_json(self, batch_size: int) -> dict[str, Any]:
        runs = self.runs(batch_size)
        durations = {stage: Duration(runs, int(s * 1e9)).to_json() for stage, s in self.seconds.items()}
        return {"batch_size": batch_size} | durations


@dataclass(slots=True)
class _VersionStats:
    last_ms: int = 0
    counters: dict[str, Duration] = field(default_factory=lambda: {name: Duration() for name in COUNTERS})
    batches: dict[int, _BatchStats] = field(default_factory=dict)
    """By batch size."""

    def succeed(self, timings: RequestTimings, seconds: float) -> None:
        self.last_ms = int(time.time() * 1000)
        self.counters["success"].add(seconds)
        for stage, stage_s in timings.stages.items():
            self.counters[stage].add(stage_s)
        for context in timings.contexts:
            self.batches.setdefault(context.batch, _BatchStats()).add(context)

    def to_json(self, model: str, version: int) -> dict[str, Any]:
        batches = sorted(self.batches.items())
        return {
            "name": model,
            "version": str(version),
            "last_inference": self.last_ms,
            "inference_count": sum(batch.images for _, batch in batches),
            "execution_count": sum(batch.runs(size) for size, batch in batches),
            "inference_stats": {name: duration.to_json() for name, duration in self.counters.items()},
            "response_stats": {},
            "batch_stats": [batch.to_json(size) for size, batch in batches],
            "memory_usage": [],
        }


class Statistics:
    """Statistics by model and version since the process started. Belongs to one event loop."""

    def __init__(self) -> None:
        self._stats: dict[tuple[str, int], _VersionStats] = {}

    @contextmanager
    def request(self, model: str, version: int) -> Iterator[RequestTimings]:
        """Count the block as one request: a failure if it raises, otherwise a success."""
        timings, begin = RequestTimings(version), time.perf_counter()
        try:
            yield timings
        except Exception:
            self._of(model, timings).counters["fail"].add(time.perf_counter() - begin)
            raise
        self._of(model, timings).succeed(timings, time.perf_counter() - begin)

    def to_json(self, versions: list[tuple[str, int]], model: str | None, version: int | None) -> dict[str, Any]:
        """Return the statistics of `versions` and of all that have any, filtered by model and version."""
        selected = sorted(
            (name, number)
            for name, number in {*versions, *self._stats}
            if model in (None, name) and version in (None, number)
        )
        return {"model_stats": [self._stats.get(key, _VersionStats()).to_json(*key) for key in selected]}

    def _of(self, model: str, timings: RequestTimings) -> _VersionStats:
        return self._stats.setdefault((model, timings.version), _VersionStats())
