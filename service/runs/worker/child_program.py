"""Run the trainer or the exporter as a child process: read its JSON lines, stop it if asked or hung, report its errors.

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
# Exit code of a trainer that a signal has stopped, with its state saved.
STOPPED = 75
# A shell script reports a signal so.
SHELL_SIGNAL = 128

Event = dict[str, Any]


class ProgramError(Exception):
    """The program failed; the message holds its error event and the end of its log."""


class ProgramDiedError(ProgramError):
    """The program was killed, stopped by someone else, or hung: another attempt may succeed."""


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
    stall_s: float
    """Seconds without an event after which the program counts as hung."""
    on_start: Callable[[int], None] = lambda _pid: None
    """Called with its process id, which is also that of its group."""


def run_program(program: Program) -> Event | None:
    """Run a program; return its `done` event, None if it was interrupted. Raises ProgramError, or ProgramDiedError."""
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
        program.on_start(child.pid)
        return _follow(program, child)
    finally:
        _end(child, program.grace_s)


def _follow(program: Program, child: subprocess.Popen[bytes]) -> Event | None:
    assert child.stdout is not None  # noqa: S101 - opened as a pipe
    reader = _EventReader(child.stdout)
    done: Event | None = None
    message: str | None = None
    silent_s = 0.0
    while True:
        # Before reading, so that everything is read.
        ended = child.poll() is not None
        if ended:
            reader.wait(DRAIN_S)
        events = reader.take()
        for event in events:
            done = event if event.get("event") == "done" else done
            message = str(event.get("message")) if event.get("event") == "error" else message
            program.on_event(event)
        if ended:
            break
        if program.interruption() is not None:
            return None
        # Counted in polls: a suspend of this process or machine is not the program's silence.
        silent_s = 0.0 if events else silent_s + POLL_S
        if silent_s > program.stall_s:
            raise ProgramDiedError(_stall_message(program))
        time.sleep(POLL_S)
    if child.returncode == 0 and done is not None:
        return done
    if program.interruption() is not None:
        return None
    raise _failure(program, child.returncode, message)


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


def _failure(program: Program, code: int, message: str | None) -> ProgramError:
    number = -code if code < 0 else code - SHELL_SIGNAL
    if code == STOPPED:
        return ProgramDiedError(f"{_name(program)} was stopped by a signal that this service did not send.")
    if number not in set(signal.Signals):
        return ProgramError(
            f"{_name(program)} ended with exit code {code}: {message or 'no error event'}{_tail(program)}"
        )
    memory = (
        "; most likely the system ran out of memory (its log says so). Lower train.batch_labelled, "
        "train.batch_unlabelled or data.crop in the recipe, or raise train.accumulate."
    )
    remedy = memory if number == signal.SIGKILL else "."
    return ProgramDiedError(f"{_name(program)} was killed by {signal.Signals(number).name}{remedy}{_tail(program)}")


def _stall_message(program: Program) -> str:
    return (
        f"{_name(program)} printed no event for {program.stall_s:.0f} s and was stopped: if it was at work, raise "
        f"MASKLOOP_STALL_S.{_tail(program)}"
    )


def _name(program: Program) -> str:
    return f"`{' '.join(program.command[1:4])}`"


def _tail(program: Program) -> str:
    tail = program.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    return f"\nThe end of {program.log_file.name}:\n{tail}"


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
