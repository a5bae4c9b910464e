"""Output of the command line: JSON lines on stdout for programs, messages on stderr for people."""

import json
import sys
import time
from typing import Any

EVERY_S = 60.0


def emit(event: str, **fields: Any) -> None:
    """Write an event to stdout as a line of JSON."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Write a message to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class SignOfLife:
    """Emits a `measuring` event at most every `EVERY_S`: a reader must be able to tell a long stage from a hung one."""

    def __init__(self) -> None:
        self._emitted_at = time.monotonic()
        self._calls = 0

    def __call__(self) -> None:
        """Note that one more image is done."""
        self._calls += 1
        if time.monotonic() - self._emitted_at >= EVERY_S:
            self._emitted_at = time.monotonic()
            emit("measuring", images_done=self._calls)
