"""A child process of the supervisor: prefix its output, restart it after a crash, stop it in time."""

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

from service.parent_watch import killed_with_parent

POLL_S = 0.05
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.5, 60.0
# After this time the earlier crashes of a process are forgotten.
STABLE_AFTER_S = 60.0
# Of a process without which the others are useless.
MAX_CRASHES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSpec:
    """How to start and stop a process."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    """Variables in addition to the supervisor's."""
    descriptors: tuple[int, ...] = ()
    """File descriptors that it inherits."""
    grace_s: float = 5.0
    """Seconds between SIGTERM and SIGKILL."""
    log_file: Path | None = None
    """File with messages that it does not print."""
    essential: bool = False
    """Whether the group ends if it cannot be kept running; otherwise it is restarted for ever."""
    consequence: str = ""
    """What does not work while it is down."""


class Child:
    """A process that is kept running. One thread, which must outlive the process, must call all methods."""

    def __init__(self, spec: ProcessSpec, on_start: Callable[[], None] = lambda: None) -> None:
        self.spec = spec
        self.crashes = 0
        """Consecutive crashes."""
        self._on_start = on_start
        self._starts = 0
        self._first_start_failed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._output: threading.Thread | None = None
        self._started_at = 0.0
        self._restart_at = 0.0

    def start(self) -> None:
        """Start the process in its own session: Ctrl-C reaches only the supervisor, which stops children in order."""
        self._process = subprocess.Popen(
            killed_with_parent(self.spec.command),
            env={**os.environ, **self.spec.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=self.spec.descriptors,
            start_new_session=True,
        )
        self._starts += 1
        self._started_at = time.monotonic()
        self._output = threading.Thread(target=self._forward_output, args=(self._process.stdout,), daemon=True)
        self._output.start()
        self._on_start()

    def poll(self) -> str | None:
        """Restart a crashed process when its backoff is over. Returns a message if it has just crashed."""
        if self._process is None:
            return self._restart() if time.monotonic() >= self._restart_at else None
        code = self._process.poll()
        if code is None:
            return None
        uptime_s = time.monotonic() - self._started_at
        self.crashes = 0 if uptime_s > STABLE_AFTER_S else self.crashes
        self._first_start_failed = self._starts == 1 and uptime_s <= STABLE_AFTER_S and code > 0
        self._release()
        return self._crashed(
            f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        )

    @property
    def failed_for_good(self) -> bool:
        """Whether it is essential and not restarted: many crashes, or an error at its first start (often a setting)."""
        return self.spec.essential and (self._first_start_failed or self.crashes >= MAX_CRASHES)

    def _restart(self) -> str | None:
        try:
            self.start()
        except OSError as error:
            # Too little memory, or too many processes.
            return self._crashed(f"cannot be started ({error})")
        return None

    def _crashed(self, cause: str) -> str:
        self.crashes += 1
        # The exponent is limited: 2.0**1024 overflows.
        backoff_s = min(MAX_BACKOFF_S, MIN_BACKOFF_S * 2 ** min(self.crashes - 1, 10))
        self._restart_at = time.monotonic() + backoff_s
        where = f"see {self.spec.log_file or 'its output above'} for the reason"
        if self.failed_for_good:
            return f"{self.spec.name} {cause}; it is not restarted, and `up` stops: {where}"
        again = f"{self.spec.name} {cause}; it is restarted in {backoff_s:g} s"
        if self.crashes == 1:
            return again
        meanwhile = f"; until it stays up, {self.spec.consequence}" if self.spec.consequence else ""
        return f"{again} ({self.crashes} crashes in a row){meanwhile}; {where}"

    def stop(self, force: Callable[[], bool]) -> None:
        """Send SIGTERM, and SIGKILL to the group after the grace period or once `force` returns true."""
        if self._process is None:
            return
        deadline = time.monotonic() + self.spec.grace_s
        self._signal(signal.SIGTERM)
        while self._process.poll() is None and time.monotonic() < deadline and not force():
            time.sleep(POLL_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._release()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _release(self) -> None:
        process, self._process = self._process, None
        if self._output is not None:
            # Limited: a grandchild may keep the pipe open.
            self._output.join(1.0)
        if process is not None and process.stdout is not None and self._output and not self._output.is_alive():
            process.stdout.close()

    def _forward_output(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(ValueError, OSError):
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip("\n")
                sys.stderr.write(f"{self.spec.name:6} | {line}\n")
                sys.stderr.flush()
