"""Which images of segmentation requests are kept: with the client's consent, or a share of all requests."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from service.settings import Settings

HOUR_S = 3600.0

Refusal = Literal["confident", "hourly-limit"]


class CollectionPolicy:
    """The policy of one process; thread-safe. `clock` returns seconds, `draw` a random number 0..1."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._draw = draw
        self._kept: deque[float] = deque(maxlen=settings.collect_per_hour or 1)
        self._lock = threading.Lock()

    def is_sampled(self) -> bool:
        """Draw whether the image of a request is kept without being asked."""
        return self._draw() < self._settings.collect_share

    def refusal(self, confidence: float) -> Refusal | None:
        """Return why an image with this mean confidence, 0..1, is not kept; None: keep it, it is counted."""
        below = self._settings.collect_below_confidence
        if below < 1 and confidence >= below:
            return "confident"
        return None if self._count() else "hourly-limit"

    def _count(self) -> bool:
        """Count an image unless the last hour is full."""
        limit, now = self._settings.collect_per_hour, self._clock()
        with self._lock:
            if limit and len(self._kept) == limit and now - self._kept[0] < HOUR_S:
                return False
            self._kept.append(now)
        return True
