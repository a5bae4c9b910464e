"""With how many threads does an inference run?

A lone one is done soonest with all cores. Of several at one time each is slower with one core than with all, and
together they are faster, since no thread waits for another (measured on two cores: 28 images/s instead of 18). So a
graph is held by sessions of several widths, and each inference takes the one that fits what else is there.
"""

from __future__ import annotations

from collections.abc import Sequence

STEP = 4
"""Between one width and the next: of each graph there is one session a width, with the graph's weights."""


def thread_counts_for(cores: int) -> tuple[int, ...]:
    """Numbers of threads for which there should be a session, the smallest first: 1, 4, 16, ... and all cores."""
    narrow = [1]
    while narrow[-1] * STEP < cores:
        narrow.append(narrow[-1] * STEP)
    return tuple(dict.fromkeys([*narrow, cores]))


def width(widths: Sequence[int], *, cores: int, free: int, load: int) -> int:
    """The widest that leaves a fair share to each of the others, and is free.

    Args:
        widths: To choose from, the smallest first; the first is taken where none fits.
        cores: All that there are.
        free: Of these, not in use.
        load: Requests that are here, this one included.
    """
    fair = min(free, cores // max(1, load))
    return max((each for each in widths if each <= fair), default=widths[0])
