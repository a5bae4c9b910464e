"""Work in threads, as the event loop sees it: it is begun, waited for or not, and goes on to its end in any case."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.segmentation.inference.cancellation import CancelCheck, InferenceCancelled, never_cancelled

T = TypeVar("T")


def begin(pool: ThreadPoolExecutor, work: Callable[[], T], gone: CancelCheck = never_cancelled) -> asyncio.Future[T]:
    """Submit work to a thread pool; raise InferenceCancelled instead if `gone` is true when a thread starts it."""

    def unless_gone() -> T:
        if gone():
            raise InferenceCancelled
        return work()

    return asyncio.get_running_loop().run_in_executor(pool, unless_gone)


async def within(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Do work in a pool, and wait for it."""
    return await begin(pool, work)


def after(work: asyncio.Future[T] | None, leave: Callable[[], None]) -> None:
    """Leave when the work is over, whoever waits for it no longer: its thread goes on. None: nothing was begun."""

    def over(done: asyncio.Future[T]) -> None:
        # Looked at, so that nobody is told of an error that nobody waits for.
        done.cancelled() or done.exception()
        leave()

    if work is None:
        leave()
    elif work.done():
        over(work)
    else:
        work.add_done_callback(over)
