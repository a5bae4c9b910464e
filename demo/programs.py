"""Start the trainer, the exporter and the service as subprocesses, and stop them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from demo import DemoError
from demo.terminal import Report

READY = re.compile(r"ready: open (http://\S+)")
READY_TIMEOUT_S = 120.0
TRAINER_STOP_TIMEOUT_S = 10.0
SERVICE_STOP_TIMEOUT_S = 90.0
POLL_S = 0.05


def run_module(module: str, *arguments: str, log_file: Path, report: Report) -> dict[str, Any]:
    """Run `python -m MODULE ARGUMENTS`, report its progress, and return its `done` event. Raises DemoError.

    The program prints one JSON event per line on stdout; its stderr is appended to `log_file`.
    """
    done, message = None, "it printed no error event"
    with log_file.open("ab") as log, _process([module, *arguments], TRAINER_STOP_TIMEOUT_S, stderr=log) as process:
        assert process.stdout is not None  # noqa: S101 - opened as a pipe
        for line in process.stdout:
            if not line.startswith(b'{"event"'):
                continue
            event = json.loads(line)
            if event["event"] == "progress":
                loss = event.get("loss")
                report(event["step"], event["steps"], event.get("stage", "") if loss is None else f"loss {loss:.3f}")
            elif event["event"] == "error":
                message = event["message"]
            elif event["event"] == "done":
                done = event
        code = process.wait()
    if code != 0 or done is None:
        raise DemoError(f"`python -m {module} {arguments[0]}` failed with exit code {code}: {message}; see {log_file}")
    return dict(done)


@contextmanager
def running_service(data_dir: Path, bundle: Path, log_file: Path, settings: dict[str, str]) -> Iterator[str]:
    """Run `python -m service up` on a free port for the duration of the block, and yield its URL.

    `data_dir` must be new, `bundle` is the first model, and `settings` are MASKLOOP_* variables. Raises DemoError if
    the service is not ready after `READY_TIMEOUT_S`.
    """
    arguments = ["service", "up", "--port", "0", "--data-dir", str(data_dir), "--model", str(bundle)]
    with (
        log_file.open("ab") as log,
        _process(arguments, SERVICE_STOP_TIMEOUT_S, stdout=log, stderr=subprocess.STDOUT, settings=settings) as service,
    ):
        yield _wait_until_ready(service, log_file)


def _wait_until_ready(service: subprocess.Popen[bytes], log_file: Path) -> str:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and service.poll() is None:
        found = READY.search(log_file.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
        time.sleep(POLL_S)
    raise DemoError(f"the service did not become ready within {READY_TIMEOUT_S:.0f} s: see {log_file}")


@contextmanager
def _process(
    module_and_arguments: list[str],
    stop_timeout_s: float,
    *,
    stdout: IO[bytes] | int = subprocess.PIPE,
    stderr: IO[bytes] | int,
    settings: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m MODULE ...`; at the end of the block send SIGTERM, then SIGKILL after `stop_timeout_s`."""
    # Linux: the kernel kills the program if this process dies, even by SIGKILL.
    setpriv = shutil.which("setpriv")
    prefix = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", *module_and_arguments],
        # Settings of the shell must not affect the demonstration.
        env={name: value for name, value in os.environ.items() if not name.startswith("MASKLOOP_")} | (settings or {}),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        # Ctrl-C reaches this process only, which then stops the program.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(stop_timeout_s)
        # Worker processes of the program are in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
