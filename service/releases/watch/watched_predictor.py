"""A predictor that counts its inferences, whichever protocol they come by, and measures how long the model computes.

On a CPU, that is the CPU time of the thread that starts the graph: alone, it hardly changes while other programs or
requests use the machine, which multiply the duration. One of n threads does between the n-th part of the work and all
of it. On a GPU, it is the duration.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from service.errors import BadInput
from service.models.loading import LoadedModel
from service.releases.watch.latency_histogram import cell_of
from service.releases.watch.traffic_counters import Counts, TrafficCounters
from service.segmentation.inference.cancellation import CancelCheck, InferenceCancelled, never_cancelled
from service.segmentation.inference.predictor import Pixels, Plan, Prediction, Predictor
from service.segmentation.inference.providers import CPU

T = TypeVar("T")

REMEMBERED_SHAPES = 1000
"""Most input shapes of which it is known that they have run."""


def watched(model: LoadedModel, counters: TrafficCounters) -> LoadedModel:
    """Return a model that counts its inferences."""
    return replace(model, engine=WatchedPredictor(model.engine, model.version, counters))


@dataclass(eq=False)
class WatchedPredictor:
    """See `Predictor`. Images that no model could segment and cancelled inferences are not counted."""

    predictor: Predictor
    version: str
    counters: TrafficCounters
    _seen: set[tuple[int, ...]] = field(default_factory=set)

    @property
    def provider(self) -> str:
        """See `Predictor`."""
        return self.predictor.provider

    @property
    def max_batch(self) -> int:
        """See `Predictor`."""
        return self.predictor.max_batch

    def plan(self, height: int, width: int) -> Plan:
        """See `Predictor`."""
        return self.predictor.plan(height, width)

    def threads_for(self, *, free: int, load: int) -> int:
        """See `Predictor`."""
        return self.predictor.threads_for(free=free, load=load)

    def run(
        self, image_HW3: Pixels, threads: int | None = None, is_cancelled: CancelCheck = never_cancelled
    ) -> Prediction:
        """See `Predictor`."""
        return self._counted(lambda: self.predictor.run(image_HW3, threads, is_cancelled), [image_HW3], threads)

    def run_batch(self, images: Sequence[Pixels]) -> list[Prediction]:
        """See `Predictor`."""
        return self._counted(lambda: self.predictor.run_batch(images), images)

    def _counted(self, work: Callable[[], T], images: Sequence[Pixels], threads: int | None = None) -> T:
        count, clock = len(images), time.thread_time if self.provider == CPU else time.perf_counter
        height, width = images[0].shape[:2]
        is_first = self._is_first((count, height, width, threads or 0))
        begin = clock()
        try:
            result = work()
        except (BadInput, InferenceCancelled):
            raise
        except Exception:
            self.counters.record(self.version, Counts(count, count))
            raise
        seconds = (clock() - begin) / count
        cell = cell_of(seconds, pixels=height * width, threads=threads or 1, is_first=is_first)
        self.counters.record(self.version, Counts(count, 0, Counter({cell: count})))
        return result

    def _is_first(self, shape: tuple[int, ...]) -> bool:
        """Whether no inference of this shape, by so many threads, was seen; each has a session of its own."""
        if len(self._seen) >= REMEMBERED_SHAPES:
            self._seen.clear()
        is_first = shape not in self._seen
        self._seen.add(shape)
        return is_first
