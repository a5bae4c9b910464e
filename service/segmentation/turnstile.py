"""Who goes in next: so many places, the most urgent first, and among equals who came first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True, slots=True)
class _Waiter:
    urgency: int
    number: int
    wanted: Callable[[int], int] = field(compare=False)
    turn: asyncio.Future[int] = field(compare=False)


class Turnstile:
    """Places for work that goes on at one time. Belongs to one event loop.

    Args:
        places: How many there are.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._inside = 0
        self._waiting: list[_Waiter] = []
        self._numbers = itertools.count()

    @property
    def inside(self) -> int:
        """How many have had their turn and have not left."""
        return self._inside

    @property
    def load(self) -> int:
        """How many are inside or wait."""
        return self._inside + sum(not waiter.turn.done() for waiter in self._waiting)

    async def enter(self, urgency: int, wanted: Callable[[int], int] = lambda _: 1) -> int:
        """Wait for a turn.

        Args:
            urgency: Lower goes first.
            wanted: How many places to take of those that are free, asked when the turn has come; 0: wait for more to
                be free. Nobody goes in before.

        Returns:
            How many places were taken; to be given to `leave`.
        """
        waiter = _Waiter(urgency, next(self._numbers), wanted, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting, waiter)
        self._let_in()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            # It may have got its turn in the very moment in which it gave up.
            if waiter.turn.done() and not waiter.turn.cancelled():
                self.leave(waiter.turn.result())
            else:
                self._let_in()
            raise

    def leave(self, places: int) -> None:
        """Give places back."""
        self._free += places
        self._inside -= 1
        self._let_in()

    def ask_again(self) -> None:
        """Ask who is first once more what it wants: what its answer depends on has changed."""
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._free:
            first = self._waiting[0]
            taken = 0 if first.turn.done() else first.wanted(self._free)
            if not taken and not first.turn.done():
                return
            heapq.heappop(self._waiting)
            if taken:
                self._free -= taken
                self._inside += 1
                first.turn.set_result(taken)
