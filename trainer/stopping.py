"""Ending a run early without losing it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Stopped(Exception):  # noqa: N818 (no error: the state is saved and --resume goes on)
    """The run was asked to stop and has saved its state."""


@dataclass(slots=True)
class Stop:
    """Whether somebody asked the run to stop."""

    asked: bool = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within it, SIGTERM and Ctrl-C only set `asked`: the loop saves its state at the end of the step."""
    stop = Stop()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
