"""Turns: order, places, and those who give up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from service.segmentation.admission.priority_limiter import PriorityLimiter


async def test_urgency_first_then_who_came_first() -> None:
    order: list[str] = []

    async def one(limiter: PriorityLimiter, name: str, urgency: int) -> None:
        taken = await limiter.acquire(urgency)
        order.append(name)
        await asyncio.sleep(0)
        limiter.release(taken)

    limiter = PriorityLimiter(1)
    held = await limiter.acquire(0)
    people = [("late", 6), ("first", 3), ("second", 3), ("urgent", 0)]
    tasks = [asyncio.create_task(one(limiter, name, urgency)) for name, urgency in people]
    await asyncio.sleep(0)
    assert limiter.demand == 5
    limiter.release(held)
    await asyncio.gather(*tasks)
    assert limiter.demand == 0
    assert order == ["urgent", "first", "second", "late"]


def test_who_wants_more_than_is_free_holds_the_others_back() -> None:
    async def scene() -> list[int]:
        limiter, seen = PriorityLimiter(4), list[int]()

        async def one(wanted: Callable[[int], int]) -> None:
            seen.append(await limiter.acquire(3, wanted))

        first = await limiter.acquire(3)
        tasks = [asyncio.create_task(one(lambda free: 4 if free == 4 else 0)), asyncio.create_task(one(lambda _: 1))]
        await asyncio.sleep(0)
        assert seen == []
        limiter.release(first)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert seen == [4]
        limiter.release(4)
        await asyncio.gather(*tasks)
        return seen

    assert asyncio.run(scene()) == [4, 1]


async def _let_others_run() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_who_gives_up_leaves_no_gap() -> None:
    limiter = PriorityLimiter(1)
    held = await limiter.acquire(3)
    # It asks for more than there will ever be, and so nobody gets past it.
    blocking = asyncio.create_task(limiter.acquire(0, lambda _: 0))
    behind = asyncio.create_task(limiter.acquire(3))
    await _let_others_run()
    limiter.release(held)
    await _let_others_run()
    assert not behind.done()
    blocking.cancel()
    await _let_others_run()
    assert await behind == 1


async def test_who_gives_up_in_the_moment_of_the_turn_gives_it_back() -> None:
    limiter = PriorityLimiter(1)
    held = await limiter.acquire(3)
    waiting = asyncio.create_task(limiter.acquire(3))
    await _let_others_run()
    limiter.release(held)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1):
        await limiter.acquire(3)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 3), st.booleans()), max_size=20))
def test_all_places_come_back_whoever_gives_up(people: list[tuple[int, int, bool]]) -> None:
    async def one(limiter: PriorityLimiter, urgency: int, places: int, inside: list[int]) -> None:
        taken = await limiter.acquire(urgency, lambda free: places if free >= places else 0)
        inside.append(taken)
        assert sum(inside) <= 3
        await asyncio.sleep(0)
        inside.remove(taken)
        limiter.release(taken)

    async def scene() -> None:
        limiter, inside = PriorityLimiter(3), list[int]()
        tasks = []
        for urgency, places, gives_up in people:
            tasks.append((asyncio.create_task(one(limiter, urgency, places, inside)), gives_up))
            await asyncio.sleep(0)
        for task, gives_up in tasks:
            # Those inside stay to the end: it is the waiting that may be given up.
            if gives_up and not inside:
                task.cancel()
        await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert await limiter.acquire(3, lambda free: free) == 3

    _run(scene)


async def test_the_light_go_past_the_heavy_and_of_these_none_past_another() -> None:
    async with asyncio.timeout(10):
        limiter, inside = PriorityLimiter(4, memory_limit=10, small_bytes=2), list[str]()

        async def one(name: str, weight: int, urgency: int = 3) -> None:
            await limiter.acquire(urgency, memory_bytes=weight)
            inside.append(name)

        people = [("6", 6, 3), ("99", 99, 3), ("4", 4, 3), ("2", 2, 3), ("1", 1, 5)]
        tasks = [asyncio.create_task(one(*person)) for person in people]
        await _let_others_run()
        assert inside == ["6", "2", "1"]
        assert limiter.demand == 5
        # Of the heavy here one at a time could be inside if all weighed 6, two if 5, and all three if 3.
        assert [limiter.max_concurrent(weight) for weight in (2, 3, 5, 6, 99)] == [5, 5, 4, 3, 3]
        limiter.release(1, memory_bytes=6)
        await _let_others_run()
        assert inside == ["6", "2", "1", "99"]
        limiter.release(1, memory_bytes=2)
        await _let_others_run()
        assert len(inside) == 4
        limiter.release(1, memory_bytes=99)
        await asyncio.gather(*tasks)
        assert inside == ["6", "2", "1", "99", "4"]


async def test_what_has_become_lighter_makes_room() -> None:
    async with asyncio.timeout(10):
        limiter = PriorityLimiter(4, memory_limit=10)
        await limiter.acquire(3, memory_bytes=99)
        second = asyncio.create_task(limiter.acquire(3, memory_bytes=7))
        limiter.shrink(99, 4)
        await _let_others_run()
        assert not second.done()
        limiter.shrink(4, 3)
        await second
        limiter.release(1, memory_bytes=3)
        limiter.release(1, memory_bytes=7)
        await limiter.acquire(3, memory_bytes=10)


async def test_the_heavy_that_gives_up_holds_up_nobody() -> None:
    async with asyncio.timeout(10):
        limiter = PriorityLimiter(4, memory_limit=10)
        held = await limiter.acquire(3, memory_bytes=5)
        heaviest = asyncio.create_task(limiter.acquire(3, memory_bytes=10))
        behind = asyncio.create_task(limiter.acquire(3, memory_bytes=5))
        await _let_others_run()
        assert not behind.done()
        heaviest.cancel()
        limiter.release(await behind, memory_bytes=5)
        # In the very moment in which it would go in.
        heaviest = asyncio.create_task(limiter.acquire(3, memory_bytes=10))
        await _let_others_run()
        limiter.release(held, memory_bytes=5)
        heaviest.cancel()
        await asyncio.gather(heaviest, return_exceptions=True)
        assert await limiter.acquire(3, memory_bytes=10) == 1


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 30), st.booleans()), max_size=20))
def test_the_heavy_share_their_limit_and_all_get_their_turn(places: int, people: list[tuple[int, int, bool]]) -> None:
    limit, light = 12, 3

    async def one(limiter: PriorityLimiter, urgency: int, weight: int, inside: list[int]) -> None:
        taken = await limiter.acquire(urgency, memory_bytes=weight)
        inside.append(weight)
        heavy = [each for each in inside if each > light]
        assert len(inside) <= places
        assert len(heavy) <= 1 or sum(heavy) <= limit
        await asyncio.sleep(0)
        inside.remove(weight)
        limiter.release(taken, memory_bytes=weight)

    async def scene() -> None:
        limiter, inside = PriorityLimiter(places, memory_limit=limit, small_bytes=light), list[int]()
        tasks = []
        for urgency, weight, gives_up in people:
            tasks.append((asyncio.create_task(one(limiter, urgency, weight, inside)), gives_up))
            await asyncio.sleep(0)
        for task, gives_up in tasks:
            if gives_up and not inside:
                task.cancel()
        for ended in await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True):
            assert ended is None or isinstance(ended, asyncio.CancelledError)
        assert await limiter.acquire(3, lambda free: free, memory_bytes=limit) == places

    _run(scene)


def _run(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scene()

    asyncio.run(bounded())
