"""Who goes in next: so many places, the most urgent first, and among equals who came first.

Beside its place, work may weigh something: memory. What is heavy shares a limit, and waits for it aside: light work
goes past, and never takes what the heavy waits for.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True, slots=True)
class _Waiter:
    urgency: int
    number: int
    wanted: Callable[[int], int] = field(compare=False)
    weight: int = field(compare=False)
    turn: asyncio.Future[int] = field(compare=False)


class PriorityLimiter:
    """Places for work that goes on at one time. Belongs to one event loop.

    Args:
        places: How many there are.
        limit: Of the weights of all heavy work inside; what is heavier alone goes in as the only heavy one. 0: none.
        light: What weighs no more counts nothing.
    """

    def __init__(self, places: int, *, limit: int = 0, light: int = 0) -> None:
        self._free = places
        self._inside = 0
        self._limit, self._light = limit, light
        self._heavy_inside = 0
        self._weight_inside = 0
        # In the order in which they go in.
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

    def heavy(self, weight: int) -> bool:
        """Whether what weighs so much shares the limit."""
        return self._counted(weight) > 0

    def beside(self, weight: int) -> int:
        """How many of those that are here could be inside at one time if all that is heavy weighed so much."""
        if not self.heavy(weight):
            return self.load
        heavy = self._heavy_inside + sum(waiter.weight > 0 for waiter in self._waiting if not waiter.turn.done())
        return self.load - heavy + min(heavy, self._limit // self._counted(weight))

    async def enter(self, urgency: int, wanted: Callable[[int], int] = lambda _: 1, *, weight: int = 0) -> int:
        """Wait for a turn.

        Args:
            urgency: Lower goes first.
            wanted: How many places to take of those that are free, asked when the turn has come; 0: wait for more to
                be free. Nobody goes in before.
            weight: What the work weighs.

        Returns:
            How many places were taken; to be given to `leave`, with the weight.
        """
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(urgency, next(self._numbers), wanted, self._counted(weight), turn)
        bisect.insort(self._waiting, waiter)
        self._let_in()
        try:
            return await turn
        except asyncio.CancelledError:
            # It may have got its turn in the very moment in which it gave up.
            if turn.done() and not turn.cancelled():
                self.leave(turn.result(), weight=weight)
            else:
                self._let_in()
            raise

    def leave(self, places: int, *, weight: int = 0) -> None:
        """Give places back, and the weight that `enter` was told."""
        self._count(-1, -places, self._counted(weight))
        self._let_in()

    def ask_again(self) -> None:
        """Ask who is first once more what it wants: what its answer depends on has changed."""
        self._let_in()

    def lighten(self, weight: int, left: int) -> None:
        """Give back a part of the weight that `enter` was told; from now on it is what is left."""
        self._weight_inside -= self._counted(weight) - self._counted(left)
        self._let_in()

    def _counted(self, weight: int) -> int:
        return min(weight, self._limit) if weight > self._light else 0

    def _count(self, one: int, places: int, weight: int) -> None:
        self._inside += one
        self._free -= places
        self._heavy_inside += one * (weight > 0)
        self._weight_inside += one * weight

    def _let_in(self) -> None:
        held_up = False
        for waiter in [each for each in self._waiting if not each.turn.done()]:
            if not self._free:
                break
            if waiter.weight:
                # Of the heavy nobody goes past another, or the heaviest would wait for ever.
                held_up = held_up or self._weight_inside + waiter.weight > self._limit
                if held_up:
                    continue
            taken = waiter.wanted(self._free)
            if not taken:
                break
            self._count(1, taken, waiter.weight)
            waiter.turn.set_result(taken)
        self._waiting = [each for each in self._waiting if not each.turn.done()]
