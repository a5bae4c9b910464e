"""Several jobs in turn: bounded, in order, given up at the first error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.errors import ImageUnreadable
from service.open_inference.execution import in_turn


def test_so_many_at_one_time_and_in_their_order() -> None:
    running, most = 0, 0

    def job(number: int) -> Callable[[], Awaitable[int]]:
        async def work() -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            for _ in range(20 - number):
                await asyncio.sleep(0)
            running -= 1
            return number

        return work

    assert asyncio.run(in_turn([job(number) for number in range(20)], 3)) == list(range(20))
    assert most == 3


def test_the_first_error_ends_the_others() -> None:
    begun: list[int] = []

    def job(number: int) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            begun.append(number)
            await asyncio.sleep(0)
            if number == 1:
                raise ImageUnreadable("broken")
            await asyncio.sleep(60)

        return work

    with pytest.raises(ImageUnreadable):
        asyncio.run(asyncio.wait_for(in_turn([job(number) for number in range(9)], 2), 20))
    assert begun == [0, 1]
