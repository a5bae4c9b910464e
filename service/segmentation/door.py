"""A door in front of work that costs memory: so many may be inside, and one more is told at once to come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Counter, Gauge

from service.errors import Overloaded

RETRY_AFTER_S = 1


class Door:
    """Belongs to one event loop."""

    def __init__(self, capacity: int, admitted: Gauge, refused: Counter) -> None:
        self._capacity = capacity
        self._inside = 0
        self._admitted = admitted
        self._refused = refused

    @property
    def inside(self) -> int:
        """How many are inside."""
        return self._inside

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place inside, for as long as the block runs.

        Raises:
            Overloaded: All are taken. Told at once, since a queue without end only makes everybody late.
        """
        if self._inside >= self._capacity:
            self._refused.inc()
            raise Overloaded(
                f"{self._capacity} images are under way or wait: try again in {RETRY_AFTER_S} s, or raise "
                "MASKLOOP_MAX_CONCURRENT_REQUESTS.",
                retry_after_s=RETRY_AFTER_S,
            )
        self._inside += 1
        self._admitted.set(self._inside)
        try:
            yield
        finally:
            self._inside -= 1
            self._admitted.set(self._inside)
