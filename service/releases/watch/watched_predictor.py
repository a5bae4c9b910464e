"""A predictor that counts its inferences, whichever protocol they come by."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from service.errors import BadInput
from service.models.loading import LoadedModel
from service.releases.watch.traffic_counters import TrafficCounters
from service.segmentation.inference.cancellation import CancelCheck, InferenceCancelled, never_cancelled
from service.segmentation.inference.predictor import Pixels, Plan, Prediction, Predictor

T = TypeVar("T")


def watched(model: LoadedModel, counters: TrafficCounters) -> LoadedModel:
    """Return a model that counts its inferences."""
    return replace(model, engine=WatchedPredictor(model.engine, model.version, counters))


@dataclass(eq=False)
class WatchedPredictor:
    """See `Predictor`. Images that no model could segment and cancelled inferences are not counted."""

    predictor: Predictor
    version: str
    counters: TrafficCounters

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
        return self._counted(lambda: self.predictor.run(image_HW3, threads, is_cancelled), 1)

    def run_batch(self, images: Sequence[Pixels]) -> list[Prediction]:
        """See `Predictor`."""
        return self._counted(lambda: self.predictor.run_batch(images), len(images))

    def _counted(self, work: Callable[[], T], images: int) -> T:
        begin = time.perf_counter()
        try:
            result = work()
        except (BadInput, InferenceCancelled):
            raise
        except Exception:
            self.counters.record(self.version, None, images)
            raise
        self.counters.record(self.version, (time.perf_counter() - begin) / images, images)
        return result
