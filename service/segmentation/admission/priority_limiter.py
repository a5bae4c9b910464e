"""Limit concurrent jobs by slots and by memory; waiting jobs start by urgency, then in arrival order.

Large jobs also share a memory limit. Those that wait for memory do not block small jobs, and small jobs do not use the
memory that large ones wait for.
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
    wanted_slots: Callable[[int], int] = field(compare=False)
    memory_bytes: int = field(compare=False)
    granted: asyncio.Future[int] = field(compare=False)


class PriorityLimiter:
    """Slots, and memory for large jobs. Belongs to one event loop.

    All large jobs together may use `memory_limit` bytes (0: no limit); a larger job runs as the only large one. Jobs
    that use at most `small_bytes` do not count against the limit.
    """

    def __init__(self, slots: int, *, memory_limit: int = 0, small_bytes: int = 0) -> None:
        self._free_slots = slots
        self.active = 0
        """Number of running jobs."""
        self._memory_limit, self._small_bytes = memory_limit, small_bytes
        self._active_large = 0
        self._used_bytes = 0
        self._waiters: list[_Waiter] = []
        self._numbers = itertools.count()

    @property
    def demand(self) -> int:
        """Number of running and waiting jobs."""
        return self.active + len(self._waiting())

    def is_large(self, memory_bytes: int) -> bool:
        """Whether a job of this size shares the memory limit."""
        return self._counted(memory_bytes) > 0

    def max_concurrent(self, memory_bytes: int) -> int:
        """How many running and waiting jobs could run at once if each large one used this many bytes."""
        if not self.is_large(memory_bytes):
            return self.demand
        large = self._active_large + sum(waiter.memory_bytes > 0 for waiter in self._waiting())
        return self.demand - large + min(large, self._memory_limit // self._counted(memory_bytes))

    async def acquire(
        self, urgency: int, wanted_slots: Callable[[int], int] = lambda _: 1, *, memory_bytes: int = 0
    ) -> int:
        """Wait for slots; return how many were taken, for `release`. A lower `urgency` goes first.

        `wanted_slots` is called with the number of free slots when the job is next, and returns how many to take. 0:
        wait until more are free, while no other job starts.
        """
        granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(urgency, next(self._numbers), wanted_slots, self._counted(memory_bytes), granted)
        bisect.insort(self._waiters, waiter)
        self.reconsider()
        try:
            return await granted
        except asyncio.CancelledError:
            # The slots may have been granted just before the cancellation.
            if granted.done() and not granted.cancelled():
                self.release(granted.result(), memory_bytes=memory_bytes)
            else:
                self.reconsider()
            raise

    def release(self, slots: int, *, memory_bytes: int = 0) -> None:
        """Return slots, and the memory that was passed to `acquire`."""
        self._count(-1, -slots, self._counted(memory_bytes))
        self.reconsider()

    def shrink(self, memory_bytes: int, remaining_bytes: int) -> None:
        """Return part of a job's memory; pass the remaining bytes to `release` later."""
        self._used_bytes -= self._counted(memory_bytes) - self._counted(remaining_bytes)
        self.reconsider()

    def reconsider(self) -> None:
        """Start waiting jobs that fit now. Call it when the result of a `wanted_slots` may have changed."""
        memory_blocked = False
        for waiter in self._waiting():
            if not self._free_slots:
                break
            if waiter.memory_bytes:
                # Large jobs do not overtake each other, or the largest might wait forever.
                memory_blocked = memory_blocked or self._used_bytes + waiter.memory_bytes > self._memory_limit
                if memory_blocked:
                    continue
            slots = waiter.wanted_slots(self._free_slots)
            if not slots:
                break
            self._count(1, slots, waiter.memory_bytes)
            waiter.granted.set_result(slots)
        self._waiters = self._waiting()

    def _waiting(self) -> list[_Waiter]:
        return [waiter for waiter in self._waiters if not waiter.granted.done()]

    def _counted(self, memory_bytes: int) -> int:
        return min(memory_bytes, self._memory_limit) if memory_bytes > self._small_bytes else 0

    def _count(self, jobs: int, slots: int, memory_bytes: int) -> None:
        self.active += jobs
        self._free_slots -= slots
        self._active_large += jobs * (memory_bytes > 0)
        self._used_bytes += jobs * memory_bytes
