"""`run_limited`: limited concurrency, results in order, cancellation on the first error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.errors import ImageUnreadable
from service.open_inference.execution import run_limited


async def test_concurrency_is_limited_and_results_are_in_order() -> None:
    running, peak = 0, 0

    def job(number: int) -> Callable[[], Awaitable[int]]:
        async def work() -> int:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            for _ in range(20 - number):
                await asyncio.sleep(0)
            running -= 1
            return number

        return work

    assert await run_limited([job(number) for number in range(20)], 3) == list(range(20))
    assert peak == 3


async def test_first_error_cancels_the_other_jobs() -> None:
    started: list[int] = []

    def job(number: int) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            started.append(number)
            await asyncio.sleep(0)
            if number == 1:
                raise ImageUnreadable("broken")
            await asyncio.sleep(60)

        return work

    with pytest.raises(ImageUnreadable):
        async with asyncio.timeout(20):
            await run_limited([job(number) for number in range(9)], 2)
    assert started == [0, 1]
