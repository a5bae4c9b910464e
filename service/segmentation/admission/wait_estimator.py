"""Estimate queueing time from the duration of recent inferences."""

from __future__ import annotations

EMA_WEIGHT = 0.1
"""Weight of the newest inference, after the first ten: about the last twenty count."""
MAX_RATIO = 2
"""One inference counts at most this many times the average."""


class WaitEstimator:
    """Moving average `mean_s` of the seconds of an inference on all cores; 0 before the first."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._count = 0
        self.mean_s = 0.0

    def record(self, seconds: float, slots: int) -> None:
        """Add an inference that took `seconds` in `slots` of the slots."""
        self._count += 1
        all_cores_s = seconds * slots / self._slots
        sample_s = min(all_cores_s, MAX_RATIO * self.mean_s) if self.mean_s else all_cores_s
        # The first samples have equal weight.
        self.mean_s += max(EMA_WEIGHT, 1 / self._count) * (sample_s - self.mean_s)

    def wait_s(self, requests_ahead: int) -> float:
        """Estimated queueing time in seconds behind this many requests."""
        return requests_ahead * self.mean_s
