"""Apply a function to many files in threads, with a progress bar."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4
"""Items for each thread that are computed before the caller takes their results."""


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    """Results in the order of the items; see `each_in_threads`."""
    return list(each_in_threads(function, items, title))


def each_in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], title: str, *, bar: bool = True
) -> Iterator[Result]:
    """Yield the results in the order of the items, computed in threads (decoding releases the GIL).

    Only a few results wait for a slow caller. A terminal shows a progress bar, if `bar` is set and rich is installed.
    The first exception is raised and cancels the rest.
    """
    threads = os.cpu_count() or 1
    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        results = _results(pool, function, items, AHEAD * threads)
        yield from _tracked(results, len(items), title) if bar else results
    finally:
        pool.shutdown(cancel_futures=True)


def _results(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item], ahead: int
) -> Iterator[Result]:
    # `map` would start with all items.
    running: deque[Future[Result]] = deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _tracked(results: Iterable[Result], total: int, title: str) -> Iterable[Result]:
    # The base installation, in which `import` runs, has no rich.
    if not sys.stderr.isatty() or not find_spec("rich"):
        return results
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import track  # noqa: PLC0415

    return track(results, title, total, console=Console(stderr=True), transient=True)
