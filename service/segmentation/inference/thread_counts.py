"""Choose the number of threads of an inference.

A single inference is fastest with all cores. Concurrent ones have a higher throughput with one core each, because no
thread waits for another (28 instead of 18 images/s, measured on two cores). So each graph has sessions with different
numbers of threads, and an inference uses the one that fits the load.
"""

from __future__ import annotations

from collections.abc import Sequence

STEP = 4
"""Ratio of one thread count to the next. Each adds a session, which holds a copy of the graph's weights."""


def thread_counts_for(cores: int) -> tuple[int, ...]:
    """Thread counts of the sessions, ascending: 1, 4, 16, ... and `cores`."""
    counts = [1]
    while counts[-1] * STEP < cores:
        counts.append(counts[-1] * STEP)
    return tuple(dict.fromkeys([*counts, cores]))


def choose_threads(counts: Sequence[int], *, cores: int, free: int, load: int) -> int:
    """The largest count that is free and leaves an equal share of the cores to each other request.

    `counts` ascend; the first is the fallback. `free` cores are unused; `load` requests are current, with this one.
    """
    share = min(free, cores // max(1, load))
    return max((count for count in counts if count <= share), default=counts[0])
