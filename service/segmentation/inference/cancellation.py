"""Cancellation of an inference in progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

CancelCheck = Callable[[], bool]
"""Returns whether the inference is cancelled. Called between steps, from the computing thread."""


class InferenceCancelled(Exception):  # noqa: N818 - not an error: the client disconnected or timed out
    """The inference was cancelled; its partial result is dropped."""


def never_cancelled() -> bool:
    """The `CancelCheck` of an inference that always finishes."""
    return False


class Cancellation:
    """A `CancelCheck` that also stops a graph while it runs: onnxruntime ends it after the present operator."""

    def __init__(self) -> None:
        self._cancelled = False
        self._stop: Callable[[], None] | None = None

    def __call__(self) -> bool:
        """Whether the inference is cancelled."""
        return self._cancelled

    def cancel(self) -> None:
        """Cancel the inference. May be called from any thread; returns at once."""
        self._cancelled = True
        stop = self._stop
        if stop is not None:
            stop()

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call `stop` if the inference is cancelled before or during the block."""
        self._stop = stop
        try:
            # `cancel` writes and reads in the opposite order, so that one of both calls it.
            if self._cancelled:
                stop()
            yield
        finally:
            self._stop = None
