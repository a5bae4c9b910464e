"""Delete files of the pool without rows, a part a minute: listing millions of objects of a store takes time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from service.images.image_store import ImageStore

PARTS = 256
EVERY_S = 60.0


class OrphanSweep:
    """The sweep of one worker, from a random part on. `clock` returns seconds and never goes back."""

    def __init__(self, images: ImageStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._images = images
        self._clock = clock
        self._part = random.randrange(PARTS)  # noqa: S311 - nothing secret
        self._swept_at = -EVERY_S

    def step(self) -> None:
        """Sweep the next part, unless the last one was swept just now."""
        if self._clock() - self._swept_at < EVERY_S:
            return
        self._swept_at = self._clock()
        self._images.delete_orphans(f"{self._part:02x}")
        self._part = (self._part + 1) % PARTS
