"""Priority limiter: order, slots, memory, and cancelled waiters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from service.segmentation.admission.priority_limiter import PriorityLimiter


async def _run_other_tasks() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_jobs_start_by_urgency_then_arrival() -> None:
    order: list[str] = []

    async def run_job(limiter: PriorityLimiter, name: str, urgency: int) -> None:
        slots = await limiter.acquire(urgency)
        order.append(name)
        await asyncio.sleep(0)
        limiter.release(slots)

    limiter = PriorityLimiter(1)
    slots = await limiter.acquire(0)
    jobs = [("late", 6), ("first", 3), ("second", 3), ("urgent", 0)]
    tasks = [asyncio.create_task(run_job(limiter, name, urgency)) for name, urgency in jobs]
    await asyncio.sleep(0)
    assert limiter.demand == 5
    limiter.release(slots)
    await asyncio.gather(*tasks)
    assert limiter.demand == 0
    assert order == ["urgent", "first", "second", "late"]


async def test_job_that_wants_more_slots_than_are_free_blocks_later_jobs() -> None:
    limiter, acquired = PriorityLimiter(4), list[int]()

    async def acquire(wanted_slots: Callable[[int], int]) -> None:
        acquired.append(await limiter.acquire(3, wanted_slots))

    first = await limiter.acquire(3)
    tasks = [
        asyncio.create_task(acquire(lambda free: 4 if free == 4 else 0)),
        asyncio.create_task(acquire(lambda _: 1)),
    ]
    await asyncio.sleep(0)
    assert acquired == []
    limiter.release(first)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert acquired == [4]
    limiter.release(4)
    await asyncio.gather(*tasks)
    assert acquired == [4, 1]


async def test_cancelled_waiter_unblocks_the_jobs_behind_it() -> None:
    limiter = PriorityLimiter(1)
    slots = await limiter.acquire(3)
    # It never accepts the free slots, so that no job behind it starts.
    blocking = asyncio.create_task(limiter.acquire(0, lambda _: 0))
    behind = asyncio.create_task(limiter.acquire(3))
    await _run_other_tasks()
    limiter.release(slots)
    await _run_other_tasks()
    assert not behind.done()
    blocking.cancel()
    await _run_other_tasks()
    assert await behind == 1


async def test_waiter_cancelled_while_it_is_granted_slots_returns_them() -> None:
    limiter = PriorityLimiter(1)
    slots = await limiter.acquire(3)
    waiting = asyncio.create_task(limiter.acquire(3))
    await _run_other_tasks()
    limiter.release(slots)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(10):
        await limiter.acquire(3)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 3), st.booleans()), max_size=20))
async def test_all_slots_return_whichever_jobs_are_cancelled(jobs: list[tuple[int, int, bool]]) -> None:
    async def run_job(limiter: PriorityLimiter, urgency: int, wanted: int, running: list[int]) -> None:
        slots = await limiter.acquire(urgency, lambda free: wanted if free >= wanted else 0)
        running.append(slots)
        assert sum(running) <= 3
        await asyncio.sleep(0)
        running.remove(slots)
        limiter.release(slots)

    async with asyncio.timeout(10):
        limiter, running = PriorityLimiter(3), list[int]()
        tasks = []
        for urgency, wanted, is_cancelled in jobs:
            tasks.append((asyncio.create_task(run_job(limiter, urgency, wanted, running)), is_cancelled))
            await asyncio.sleep(0)
        for task, is_cancelled in tasks:
            # Only waiting jobs are cancelled.
            if is_cancelled and not running:
                task.cancel()
        await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert await limiter.acquire(3, lambda free: free) == 3


async def test_small_jobs_overtake_jobs_that_wait_for_memory_and_large_jobs_do_not() -> None:
    async with asyncio.timeout(10):
        limiter, started = PriorityLimiter(4, memory_limit=10, small_bytes=2), list[str]()

        async def start_job(name: str, memory_bytes: int, urgency: int = 3) -> None:
            await limiter.acquire(urgency, memory_bytes=memory_bytes)
            started.append(name)

        jobs = [("6", 6, 3), ("99", 99, 3), ("4", 4, 3), ("2", 2, 3), ("1", 1, 5)]
        tasks = [asyncio.create_task(start_job(*job)) for job in jobs]
        await _run_other_tasks()
        assert started == ["6", "2", "1"]
        assert limiter.demand == 5
        # If each of the three large jobs used 6 bytes, one could run at a time; two with 5 bytes; all three with 3.
        assert [limiter.max_concurrent(size) for size in (2, 3, 5, 6, 99)] == [5, 5, 4, 3, 3]
        limiter.release(1, memory_bytes=6)
        await _run_other_tasks()
        assert started == ["6", "2", "1", "99"]
        limiter.release(1, memory_bytes=2)
        await _run_other_tasks()
        assert len(started) == 4
        limiter.release(1, memory_bytes=99)
        await asyncio.gather(*tasks)
        assert started == ["6", "2", "1", "99", "4"]


async def test_shrink_starts_jobs_that_wait_for_the_memory() -> None:
    async with asyncio.timeout(10):
        limiter = PriorityLimiter(4, memory_limit=10)
        await limiter.acquire(3, memory_bytes=99)
        second = asyncio.create_task(limiter.acquire(3, memory_bytes=7))
        limiter.shrink(99, 4)
        await _run_other_tasks()
        assert not second.done()
        limiter.shrink(4, 3)
        await second
        limiter.release(1, memory_bytes=3)
        limiter.release(1, memory_bytes=7)
        await limiter.acquire(3, memory_bytes=10)


async def test_cancelled_large_job_unblocks_the_jobs_behind_it() -> None:
    async with asyncio.timeout(10):
        limiter = PriorityLimiter(4, memory_limit=10)
        slots = await limiter.acquire(3, memory_bytes=5)
        largest = asyncio.create_task(limiter.acquire(3, memory_bytes=10))
        behind = asyncio.create_task(limiter.acquire(3, memory_bytes=5))
        await _run_other_tasks()
        assert not behind.done()
        largest.cancel()
        limiter.release(await behind, memory_bytes=5)
        # Cancelled just after the slots were granted.
        largest = asyncio.create_task(limiter.acquire(3, memory_bytes=10))
        await _run_other_tasks()
        limiter.release(slots, memory_bytes=5)
        largest.cancel()
        await asyncio.gather(largest, return_exceptions=True)
        assert await limiter.acquire(3, memory_bytes=10) == 1


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 30), st.booleans()), max_size=20))
async def test_large_jobs_share_the_memory_limit_and_all_start(slots: int, jobs: list[tuple[int, int, bool]]) -> None:
    memory_limit, small_bytes = 12, 3

    async def run_job(limiter: PriorityLimiter, urgency: int, memory_bytes: int, running: list[int]) -> None:
        acquired = await limiter.acquire(urgency, memory_bytes=memory_bytes)
        running.append(memory_bytes)
        large = [size for size in running if size > small_bytes]
        assert len(running) <= slots
        assert len(large) <= 1 or sum(large) <= memory_limit
        await asyncio.sleep(0)
        running.remove(memory_bytes)
        limiter.release(acquired, memory_bytes=memory_bytes)

    async with asyncio.timeout(10):
        limiter = PriorityLimiter(slots, memory_limit=memory_limit, small_bytes=small_bytes)
        running, tasks = list[int](), []
        for urgency, memory_bytes, is_cancelled in jobs:
            tasks.append((asyncio.create_task(run_job(limiter, urgency, memory_bytes, running)), is_cancelled))
            await asyncio.sleep(0)
        for task, is_cancelled in tasks:
            if is_cancelled and not running:
                task.cancel()
        for result in await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError)
        assert await limiter.acquire(3, lambda free: free, memory_bytes=memory_limit) == slots
