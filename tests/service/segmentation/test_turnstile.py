"""Turns: order, places, and those who give up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from service.segmentation.turnstile import Turnstile


def test_urgency_first_then_who_came_first() -> None:
    order: list[str] = []

    async def one(turnstile: Turnstile, name: str, urgency: int) -> None:
        taken = await turnstile.enter(urgency)
        order.append(name)
        await asyncio.sleep(0)
        turnstile.leave(taken)

    async def scene() -> None:
        turnstile = Turnstile(1)
        held = await turnstile.enter(0)
        people = [("late", 6), ("first", 3), ("second", 3), ("urgent", 0)]
        tasks = [asyncio.create_task(one(turnstile, name, urgency)) for name, urgency in people]
        await asyncio.sleep(0)
        assert turnstile.load == 5
        turnstile.leave(held)
        await asyncio.gather(*tasks)
        assert turnstile.load == 0

    asyncio.run(scene())
    assert order == ["urgent", "first", "second", "late"]


def test_who_wants_more_than_is_free_holds_the_others_back() -> None:
    async def scene() -> list[int]:
        turnstile, seen = Turnstile(4), list[int]()

        async def one(wanted: Callable[[int], int]) -> None:
            seen.append(await turnstile.enter(3, wanted))

        first = await turnstile.enter(3)
        tasks = [asyncio.create_task(one(lambda free: 4 if free == 4 else 0)), asyncio.create_task(one(lambda _: 1))]
        await asyncio.sleep(0)
        assert seen == []
        turnstile.leave(first)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert seen == [4]
        turnstile.leave(4)
        await asyncio.gather(*tasks)
        return seen

    assert asyncio.run(scene()) == [4, 1]


async def _let_others_run() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_who_gives_up_leaves_no_gap() -> None:
    async def scene() -> None:
        turnstile = Turnstile(1)
        held = await turnstile.enter(3)
        # It asks for more than there will ever be, and so nobody gets past it.
        blocking = asyncio.create_task(turnstile.enter(0, lambda _: 0))
        behind = asyncio.create_task(turnstile.enter(3))
        await _let_others_run()
        turnstile.leave(held)
        await _let_others_run()
        assert not behind.done()
        blocking.cancel()
        await _let_others_run()
        assert await behind == 1

    asyncio.run(scene())


def test_who_gives_up_in_the_moment_of_the_turn_gives_it_back() -> None:
    async def scene() -> None:
        turnstile = Turnstile(1)
        held = await turnstile.enter(3)
        waiting = asyncio.create_task(turnstile.enter(3))
        await _let_others_run()
        turnstile.leave(held)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(1):
            await turnstile.enter(3)

    asyncio.run(scene())


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 3), st.booleans()), max_size=20))
def test_all_places_come_back_whoever_gives_up(people: list[tuple[int, int, bool]]) -> None:
    async def one(turnstile: Turnstile, urgency: int, places: int, inside: list[int]) -> None:
        taken = await turnstile.enter(urgency, lambda free: places if free >= places else 0)
        inside.append(taken)
        assert sum(inside) <= 3
        await asyncio.sleep(0)
        inside.remove(taken)
        turnstile.leave(taken)

    async def scene() -> None:
        turnstile, inside = Turnstile(3), list[int]()
        tasks = []
        for urgency, places, gives_up in people:
            tasks.append((asyncio.create_task(one(turnstile, urgency, places, inside)), gives_up))
            await asyncio.sleep(0)
        for task, gives_up in tasks:
            # Those inside stay to the end: it is the waiting that may be given up.
            if gives_up and not inside:
                task.cancel()
        await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert await turnstile.enter(3, lambda free: free) == 3

    _run(scene)


def _run(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scene()

    asyncio.run(bounded())
