"""The programs that the demonstration runs: the trainer and the exporter by hand, and the service as a group."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from service.demo.show import Report
from service.errors import MaskloopError
from service.parent_watch import killed_with_parent
from service.runs.child_program import Event, Program, ProgramError, run_program

NEEDED = {"trainer": "trainer", "exporter": "exporter", "torch": "trainer", "onnx": "exporter", "skimage": "demo"}
READY = re.compile(r"ready: open (http://\S+)")
READY_WITHIN_S = 120.0
ENDED_WITHIN_S = 90.0


class DemoError(MaskloopError):
    """The demonstration cannot go on, or did not show what it promises; the message says why."""


def check_installed() -> None:
    """Look for everything that the demonstration needs, before it begins.

    Raises:
        DemoError: Something is missing; the message holds the command that installs it.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise DemoError(
            f"{', '.join(missing)} not installed: run `make demo`, or `uv pip install '.[trainer,exporter,demo]'`"
        )


def textures_recipe() -> Path:
    """The recipe that comes with the trainer."""
    spec = find_spec("trainer")
    assert spec is not None  # noqa: S101 - `check_installed` came first
    assert spec.origin is not None  # noqa: S101
    return Path(spec.origin).parent / "recipes" / "textures.toml"


def run_module(module: str, *arguments: str, log_file: Path, report: Report) -> Event:
    """Run `python -m MODULE` to its end, with its progress shown, and return its `done` event.

    Raises:
        DemoError: It failed.
    """

    def on_event(event: Event) -> None:
        if event["event"] == "progress":
            loss = event.get("loss")
            report(event["step"], event["steps"], f"loss {loss:.3f}" if loss is not None else event.get("stage", ""))

    command = [sys.executable, "-m", module, *arguments]
    program = Program(command=command, log_file=log_file, on_event=on_event, interruption=lambda: None, grace_s=10.0)
    try:
        done = run_program(program)
    except ProgramError as error:
        raise DemoError(str(error)) from None
    assert done is not None  # noqa: S101 - nobody interrupts it
    return done


def make_textures(dataset: Path, log_file: Path) -> None:
    """Write the data set.

    Raises:
        DemoError: It failed.
    """
    command = [sys.executable, "-m", "trainer", "textures", str(dataset)]
    with log_file.open("ab") as log:
        ended = subprocess.run(killed_with_parent(command), stdout=log, stderr=subprocess.STDOUT, check=False)
    if ended.returncode != 0:
        raise DemoError(f"`python -m trainer textures` ended with exit code {ended.returncode}: see {log_file}")


@contextmanager
def service_up(data_dir: Path, bundle: Path, log_file: Path, settings: dict[str, str]) -> Iterator[str]:
    """Run `python -m service up` on a free port, and give its address; the group is ended with the block.

    Args:
        data_dir: A new folder.
        bundle: The model to begin with.
        log_file: Where its lines go.
        settings: MASKLOOP_* variables.

    Raises:
        DemoError: It is not ready in time.
    """
    command = [
        sys.executable,
        "-m",
        "service",
        "up",
        "--port",
        "0",
        "--data-dir",
        str(data_dir),
        "--model",
        str(bundle),
    ]
    with log_file.open("ab") as log:
        group = subprocess.Popen(
            killed_with_parent(command),
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _address(group, log_file)
    finally:
        group.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            group.wait(ENDED_WITHIN_S)
        # Its children are tied to it.
        group.kill()
        group.wait()


def _address(group: subprocess.Popen[bytes], log_file: Path) -> str:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and group.poll() is None:
        found = READY.search(log_file.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
        time.sleep(0.05)
    raise DemoError(f"the service did not become ready: see {log_file}")
