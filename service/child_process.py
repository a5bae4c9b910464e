"""One child of the supervisor: started tied to it, its output passed on line by line, started again when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from service.parent_watch import tethered

LOOK_EVERY_S = 0.05
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 10.0
# Alive for so long, it starts with a clean record.
SOUND_AFTER_S = 60.0
MOST_DEATHS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """What to start and how to end it.

    Attributes:
        name: For the terminal.
        command: As for `subprocess`.
        environment: Beside the supervisor's own.
        descriptors: Open files that it inherits.
        grace_s: How long it may take to end after SIGTERM.
        log_file: Where it writes what it does not say aloud.
    """

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()
    grace_s: float = 5.0
    log_file: Path | None = None


class Child:
    """A process that should run. All methods belong to one thread, which must live as long as the child."""

    def __init__(self, spec: Spec, on_start: Callable[[], None] = lambda: None) -> None:
        self.spec = spec
        self._on_start = on_start
        self.deaths = 0
        """In a row; forgotten once it has lived for a while."""
        self._births = 0
        self._stillborn = False
        self._process: subprocess.Popen[bytes] | None = None
        self._output: threading.Thread | None = None
        self._started_at = 0.0
        self._start_again_at = 0.0

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C is for the supervisor, which ends its children in order."""
        self._process = subprocess.Popen(
            tethered(self.spec.command),
            env={**os.environ, **self.spec.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=self.spec.descriptors,
            start_new_session=True,
        )
        self._births += 1
        self._started_at = time.monotonic()
        self._output = threading.Thread(target=self._pass_on, args=(self._process.stdout,), daemon=True)
        self._output.start()
        self._on_start()

    def look(self) -> str | None:
        """Start it again if it has died and its time has come. What there is to tell, if anything."""
        if self._process is None:
            if time.monotonic() >= self._start_again_at:
                self.start()
            return None
        code = self._process.poll()
        if code is None:
            return None
        lived_s = time.monotonic() - self._started_at
        self.deaths = 1 if lived_s > SOUND_AFTER_S else self.deaths + 1
        self._stillborn = self._births == 1 and lived_s <= SOUND_AFTER_S and code > 0
        self._forget()
        backoff = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (self.deaths - 1))
        self._start_again_at = time.monotonic() + backoff
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"{self.spec.name} {how}"

    @property
    def hopeless(self) -> bool:
        """Whether starting it again makes no sense: it died too often, or its very first start ended with an error.

        The latter is a setting that makes no sense, and as such no better at the second try.
        """
        return self._stillborn or self.deaths >= MOST_DEATHS

    def stop(self, hurry: Callable[[], bool]) -> None:
        """End it: SIGTERM, and SIGKILL to all of its group when the grace is over, or as soon as `hurry` says so."""
        if self._process is None:
            return
        deadline = time.monotonic() + self.spec.grace_s
        self._signal(signal.SIGTERM)
        while self._process.poll() is None and time.monotonic() < deadline and not hurry():
            time.sleep(LOOK_EVERY_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._forget()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _forget(self) -> None:
        process, self._process = self._process, None
        if self._output is not None:
            # A grandchild may hold the pipe open: its words are not worth waiting for.
            self._output.join(1.0)
        if process is not None and process.stdout is not None and self._output and not self._output.is_alive():
            process.stdout.close()

    def _pass_on(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(ValueError, OSError):
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip("\n")
                sys.stderr.write(f"{self.spec.name:6} | {line}\n")
                sys.stderr.flush()
