"""A door in front of work that costs memory and time: who would wait too long is told at once to come back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from service.errors import Overloaded

RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class Patience:
    """What a door knows of time.

    Attributes:
        wait_s: How long one more would wait behind so many.
        longest_s: How long one may.
        always: So many are let in whatever it says.
    """

    wait_s: Callable[[int], float]
    longest_s: float
    always: int


class Door:
    """Belongs to one event loop.

    Args:
        capacity: So many may be inside.
        admitted: Tells how many are.
        refused: Counts those who were not let in.
        patience: How long one may wait inside; None: any time.
    """

    def __init__(self, capacity: int, admitted: Gauge, refused: Counter, patience: Patience | None = None) -> None:
        self._capacity = capacity
        self._inside = 0
        self._admitted = admitted
        self._refused = refused
        self._patience = patience

    @property
    def inside(self) -> int:
        """How many are inside."""
        return self._inside

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place inside, for as long as the block runs.

        Raises:
            Overloaded: All are taken, or the wait would be too long. Told at once, since a queue without end only makes
                everybody late.
        """
        if self._inside >= self._capacity:
            raise self._refusal("MASKLOOP_MAX_CONCURRENT_REQUESTS")
        if self._too_long():
            raise self._refusal("MASKLOOP_MAX_WAIT_S")
        self._inside += 1
        self._admitted.set(self._inside)
        try:
            yield
        finally:
            self._inside -= 1
            self._admitted.set(self._inside)

    def _too_long(self) -> bool:
        patience = self._patience
        if patience is None or self._inside < patience.always:
            return False
        return patience.wait_s(self._inside) > patience.longest_s

    def _refusal(self, setting: str) -> Overloaded:
        self._refused.inc()
        return Overloaded(
            f"{self._inside} images are under way or wait: try again in {RETRY_AFTER_S} s, or raise {setting}.",
            retry_after_s=RETRY_AFTER_S,
        )
