"""Run the trainer or the exporter as a child process: read its JSON lines, stop it, report its errors.

The child has its own process group, so that signals reach its children, and ends with this process, even if that is
killed.
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
from queue import SimpleQueue
from typing import IO, Any

import structlog

from service.parent_watch import killed_with_parent

log = structlog.stdlib.get_logger(__name__)

POLL_S = 0.1
DRAIN_S = 5.0
LOG_TAIL_BYTES = 2000
MAX_LINE_BYTES = 1 << 20

Event = dict[str, Any]


class ProgramError(Exception):
    """The program failed; the message holds its error event and the end of its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run."""

    command: list[str]
    log_file: Path
    """Receives its stderr."""
    on_event: Callable[[Event], None]
    """Called with every event, in the thread that called `run_program`."""
    interruption: Callable[[], str | None]
    """Polled; a result other than None stops the program."""
    grace_s: float
    """Seconds between SIGTERM and SIGKILL."""


def run_program(program: Program) -> Event | None:
    """Run a program; return its `done` event, None if it was interrupted. Raises ProgramError."""
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
        return _follow(program, child)
    finally:
        _end(child, program.grace_s)


def _follow(program: Program, child: subprocess.Popen[bytes]) -> Event | None:
    assert child.stdout is not None  # noqa: S101 - opened as a pipe
    reader = _EventReader(child.stdout)
    done: Event | None = None
    message: str | None = None
    while True:
        # Before reading, so that everything is read.
        ended = child.poll() is not None
        if ended:
            reader.wait(DRAIN_S)
        for event in reader.take():
            done = event if event.get("event") == "done" else done
            message = str(event.get("message")) if event.get("event") == "error" else message
            program.on_event(event)
        if ended:
            break
        if program.interruption() is not None:
            return None
        time.sleep(POLL_S)
    if child.returncode != 0 or done is None:
        raise ProgramError(_failure_message(program, child.returncode, message))
    return done


def _end(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Send SIGTERM to the group, then SIGKILL after the grace time, even if the child has ended."""
    if child.poll() is None:
        _signal(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    _signal(child, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _failure_message(program: Program, code: int, message: str | None) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    name = " ".join(program.command[1:4])
    tail = program.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    return f"`{name}` {how}: {message or 'no error event'}\nThe end of {program.log_file.name}:\n{tail}"


class _EventReader:
    """Reads the lines of a pipe in a thread, so that a silent child does not block."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._thread = threading.Thread(target=self._read, args=(pipe,), name="program output", daemon=True)
        self._thread.start()

    def take(self) -> list[Event]:
        return [self._events.get() for _ in range(self._events.qsize())]

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of the pipe, which a grandchild may keep open."""
        self._thread.join(timeout_s)

    def _read(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(ValueError, OSError):
            while line := pipe.readline(MAX_LINE_BYTES):
                if (event := _parse(line)) is not None:
                    self._events.put(event)


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and isinstance(event.get("event"), str):
        return event
    log.debug("not an event", line=line[:200].decode(errors="replace"))
    return None
