"""Send files in batches, and find out which of a refused batch is at fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from service.client.call_errors import Invalid

# Far below the limits of the service, so that progress is seen and little is lost with a connection.
MAX_IMAGES, MAX_BYTES = 16, 32 * 2**20
# While the service computes one batch, the next one arrives.
CONCURRENT = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


def batches(items: Iterable[Item], path: Callable[[Item], Path]) -> Iterator[list[Item]]:
    """Group items into batches of at most `MAX_IMAGES` files and `MAX_BYTES`. Raises OSError."""
    group: list[Item] = []
    size = 0
    for item in items:
        length = path(item).stat().st_size
        if group and (len(group) == MAX_IMAGES or size + length > MAX_BYTES):
            yield group
            group, size = [], 0
        group.append(item)
        size += length
    if group:
        yield group


def halved_if_refused(
    send: Callable[[Sequence[Item]], Iterable[Result]],
    refused: Callable[[Item, Invalid], Result],
    items: Sequence[Item],
) -> Iterator[Result]:
    """Send items together; if the service refuses a batch as a whole, send its halves, and call `refused` for one."""
    try:
        yield from send(items)
    except Invalid as error:
        if len(items) == 1:
            yield refused(items[0], error)
            return
        middle = len(items) // 2
        yield from halved_if_refused(send, refused, items[:middle])
        yield from halved_if_refused(send, refused, items[middle:])


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of `CONCURRENT` threads as they come; after an error or Ctrl-C no further item is started."""
    remaining = iter(items)
    with ThreadPoolExecutor(CONCURRENT) as pool:
        running: set[Future[Result]] = set()
        while True:
            while len(running) < CONCURRENT and (item := next(remaining, None)) is not None:
                running.add(pool.submit(work, item))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()
