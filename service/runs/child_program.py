"""One of the other two programs as a child: JSON lines in, a way to stop it, and its last words where it failed.

The child runs in a process group of its own, so that a signal reaches whatever it has started too, and it is tied to
this process: it cannot outlive the worker, even where that is killed. Its stderr goes to the run's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import structlog

from service.parent_watch import killed_with_parent

log = structlog.stdlib.get_logger(__name__)

LOOK_EVERY_S = 0.1
LAST_LINES_S = 5.0
LOG_TAIL_BYTES = 2000
# Lines longer than this are not ours.
LONGEST_LINE = 1 << 20

Event = dict[str, Any]


class ProgramError(Exception):
    """It ended with an error; the message is its own where it gave one, with the end of its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and what to do with what it says.

    Attributes:
        command: As for `subprocess`.
        log_file: Where its stderr is appended.
        on_event: Called with every JSON object that it prints, in the thread that called `run_program`.
        interruption: SegmentQuery several times a second; anything but None stops the program.
        grace_s: How long it may take to end after SIGTERM.
    """

    command: list[str]
    log_file: Path
    on_event: Callable[[Event], None]
    interruption: Callable[[], str | None]
    grace_s: float


def run_program(program: Program) -> Event | None:
    """Run it to its end.

    Returns:
        Its `done` event; None where it was interrupted. No process of its group is left in either case.

    Raises:
        ProgramError: It ended by itself, and not well.
    """
    with program.log_file.open("ab") as stderr:
        stderr.write(f"$ {' '.join(program.command)}\n".encode())
        stderr.flush()
        child = subprocess.Popen(
            killed_with_parent(program.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        return _attend(program, child)
    finally:
        _end(child, program.grace_s)


def _attend(program: Program, child: subprocess.Popen[bytes]) -> Event | None:
    assert child.stdout is not None  # noqa: S101 - it was asked for
    inbox = _Inbox(child.stdout)
    done: Event | None = None
    message: str | None = None
    while True:
        # First the state of the child, then its lines: what it said before it ended is read all the same.
        ended = child.poll() is not None
        if ended:
            inbox.wait(LAST_LINES_S)
        for event in inbox.take():
            done = event if event.get("event") == "done" else done
            message = str(event.get("message")) if event.get("event") == "error" else message
            program.on_event(event)
        if ended:
            break
        if program.interruption() is not None:
            return None
        time.sleep(LOOK_EVERY_S)
    if child.returncode != 0 or done is None:
        raise ProgramError(_last_words(program, child.returncode, message))
    return done


def _end(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """SIGTERM to the group, SIGKILL after the grace; also where the child itself is gone and has left others behind."""
    if child.poll() is None:
        _signal(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    _signal(child, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The group keeps the child's number as long as anybody is in it, so it cannot mean others.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _last_words(program: Program, code: int, message: str | None) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    name = " ".join(program.command[1:4])
    tail = program.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    return f"`{name}` {how}: {message or 'it gave no reason'}\nThe end of {program.log_file.name}:\n{tail}"


class _Inbox:
    """Lines of a pipe, read by a thread, so that a child which falls silent blocks nobody."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, args=(pipe,), name="program output", daemon=True)
        self._thread.start()

    def take(self) -> list[Event]:
        """What has come in since."""
        with self._lock:
            events, self._events = self._events, []
        return events

    def wait(self, timeout_s: float) -> None:
        """Wait until nothing more can come; not for ever, since a grandchild may keep the pipe open."""
        self._thread.join(timeout_s)

    def _read(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(ValueError, OSError):
            while line := pipe.readline(LONGEST_LINE):
                event = _parse(line)
                if event is not None:
                    with self._lock:
                        self._events.append(event)


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and isinstance(event.get("event"), str):
        return event
    log.debug("not an event", line=line[:200].decode(errors="replace"))
    return None
