"""Cancellation of an inference in progress."""

from __future__ import annotations

from collections.abc import Callable

CancelCheck = Callable[[], bool]
"""Returns whether the inference is cancelled. Called between steps, from the computing thread."""


class InferenceCancelled(Exception):  # noqa: N818 - not an error: the client disconnected or timed out
    """The inference was cancelled; its partial result is dropped."""


def never_cancelled() -> bool:
    """The `CancelCheck` of an inference that always finishes."""
    return False
