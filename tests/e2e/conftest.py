"""Run `python -m service up` as a user does, and find its processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import eventually


class Group:
    """A running `up`; its processes are those whose command line contains the data folder."""

    def __init__(self, data_dir: Path, *options: str, **settings: Any) -> None:
        self.data_dir = data_dir
        self.lines: list[str] = []
        environment = {f"MASKLOOP_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", "up", "--port", "0", "--data-dir", str(data_dir), *options],
            # On tiny tensors, synchronising threads costs more than they save.
            env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    @property
    def url(self) -> str | None:
        """Address in the `ready` message; None before that."""
        found = [re.search(r"ready: open (http://\S+)", line) for line in self.lines]
        return next((match[1] for match in found if match), None)

    def ready(self) -> str:
        """Wait for the `ready` message and return the address."""
        eventually(lambda: self.url is not None or self.process.poll() is not None, within_s=60)
        assert self.url is not None, "\n".join(self.lines)
        return self.url

    def members(self) -> dict[int, str]:
        """Command lines of the running processes, including the supervisor, by process id."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            # The command line of a zombie is empty.
            if str(self.data_dir) in command and int(entry.name) != os.getpid():
                found[int(entry.name)] = command
        return found

    def end(self, number: signal.Signals) -> int:
        """Send a signal to the supervisor only, wait for it, and return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(5)
        return code


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Group]]:
    """Function that starts a group; all processes are killed after the test."""
    groups: list[Group] = []

    def start(*options: str, **settings: Any) -> Group:
        groups.append(Group(tmp_path / f"group{len(groups)}", *options, **settings))
        return groups[-1]

    yield start
    for group in groups:
        for pid in group.members():
            os.kill(pid, signal.SIGKILL)
        group.process.wait()
        if group.process.stderr is not None:
            group.process.stderr.close()
