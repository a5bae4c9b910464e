"""A door in front of work that costs memory and time: who would wait too long is told at once to come back.

There is a line beside it, for those who have time. They leave half of the places to the others, who pass them inside as
well, being more urgent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from service.errors import Overloaded
from service.segmentation.admission.priority_limiter import PriorityLimiter

RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """What a door knows of time.

    Attributes:
        wait_s: How long one more would wait behind so many.
        longest_s: How long one may.
        always: So many are let in whatever it says, and may wait for any time.
    """

    wait_s: Callable[[int], float]
    longest_s: float
    always: int


class AdmissionGate:
    """Belongs to one event loop.

    Args:
        capacity: So many may be inside.
        admitted: Tells how many are.
        refused: Counts those who were not let in.
        patience: How long one may wait inside; None: any time.
    """

    def __init__(self, capacity: int, admitted: Gauge, refused: Counter, patience: WaitPolicy | None = None) -> None:
        self._capacity = capacity
        self._hurried = 0
        # One at least, or nobody who waits would ever get in.
        self._most_patient = max(1, capacity // 2)
        self._line = PriorityLimiter(self._most_patient)
        admitted.set_function(lambda: self.inside)
        self._refused = refused
        self._patience = patience

    @property
    def inside(self) -> int:
        """How many are inside."""
        return self._hurried + self._line.inside

    def check(self) -> float | None:
        """Ask whether one more would be let in now, and take no place; who would not is counted as refused.

        Returns:
            How many seconds one may wait inside; None: any time.

        Raises:
            Overloaded: As `place` says.
        """
        if self.inside >= self._capacity:
            raise self._refusal("MASKLOOP_MAX_CONCURRENT_REQUESTS")
        patience = self._patience_now()
        if patience is None:
            return None
        if patience.wait_s(self._hurried) > patience.longest_s:
            raise self.too_late()
        return patience.longest_s

    @asynccontextmanager
    async def place(self) -> AsyncIterator[float | None]:
        """A place inside, for as long as the block runs.

        Yields:
            How many seconds one may wait inside, should the wait be longer than was expected; None: any time.

        Raises:
            Overloaded: All are taken, or the wait would be too long. Told at once, since a queue without end only makes
                everybody late.
        """
        longest_s = self.check()
        self._hurried += 1
        try:
            yield longest_s
        finally:
            self._hurried -= 1
            self._line.ask_again()

    @asynccontextmanager
    async def admit_queued(self, urgency: int, within_s: float) -> AsyncIterator[None]:
        """A place inside, waited for as long as half of them or more are taken.

        Args:
            urgency: Of those who wait, lower goes first; among equals who came first.
            within_s: How long to wait.

        Raises:
            Overloaded: The turn did not come.
        """
        try:
            async with asyncio.timeout(within_s):
                taken = await self._line.enter(urgency, lambda _: int(self.inside < self._most_patient))
        except TimeoutError:
            raise self._refusal("MASKLOOP_MAX_CONCURRENT_REQUESTS") from None
        try:
            yield
        finally:
            self._line.leave(taken)

    def too_late(self) -> Overloaded:
        """What to tell who would wait for too long, or has."""
        return self._refusal("MASKLOOP_MAX_WAIT_S")

    def _patience_now(self) -> WaitPolicy | None:
        patience = self._patience
        # Those of the line let others pass.
        return None if patience is None or self._hurried < patience.always else patience

    def _refusal(self, setting: str) -> Overloaded:
        self._refused.inc()
        return Overloaded(
            f"{self.inside} images are under way or wait: try again in {RETRY_AFTER_S} s, or raise {setting}.",
            retry_after_s=RETRY_AFTER_S,
        )
