"""Graceful stop on SIGTERM and Ctrl-C."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Stopped(Exception):  # noqa: N818 (not an error: the state is saved and --resume continues)
    """The run was stopped by a signal after it saved its state."""


@dataclass(slots=True)
class StopRequest:
    """Whether a signal has requested the run to stop."""

    requested: bool = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Let SIGTERM and Ctrl-C only set `requested`; the loop saves its state after the current step."""
    stop = StopRequest()

    def request(_signal: int, _frame: FrameType | None) -> None:
        stop.requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
