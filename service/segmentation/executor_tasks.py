"""Run blocking work in a thread pool from the event loop. Work that has begun runs to its end, even if cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.segmentation.inference.cancellation import CancelCheck, InferenceCancelled, never_cancelled

T = TypeVar("T")


def submit(
    pool: ThreadPoolExecutor, work: Callable[[], T], is_cancelled: CancelCheck = never_cancelled
) -> asyncio.Future[T]:
    """Submit work to a pool; raise InferenceCancelled instead if `is_cancelled()` is true when a thread starts it."""

    def unless_cancelled() -> T:
        if is_cancelled():
            raise InferenceCancelled
        return work()

    return asyncio.get_running_loop().run_in_executor(pool, unless_cancelled)


def call_when_done(work: asyncio.Future[T] | None, callback: Callable[[], None]) -> None:
    """Call `callback` when the work has ended, even if it is no longer awaited. None: call it now."""

    def on_done(done: asyncio.Future[T]) -> None:
        # Retrieve the exception, or asyncio logs it.
        done.cancelled() or done.exception()
        callback()

    if work is None:
        callback()
    elif work.done():
        on_done(work)
    else:
        work.add_done_callback(on_done)
