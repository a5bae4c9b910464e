"""Who stops waiting for an answer while it is computed, and how the computation hears of it."""

from __future__ import annotations

from collections.abc import Callable

Gone = Callable[[], bool]
"""Whether nobody waits for the answer any more. SegmentQuery from the thread that computes, between its steps."""


class InferenceCancelled(Exception):  # noqa: N818 - no error of ours: nobody is there to be told
    """Nobody waits for the answer any more; what was computed is dropped."""


def never_cancelled() -> bool:
    """The `Gone` of who waits to the end."""
    return False
