"""Runs `python -m service up` and finds the processes of the group."""

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

import httpx
import pytest

from service.keys.api_key import read_local_key
from tests.service.conftest import eventually


class Group:
    """A running `up`. Its processes are found by its data folder, which is in every child's command line."""

    def __init__(self, data_dir: Path, *options: str, **settings: Any) -> None:
        self.data_dir = data_dir
        self.lines: list[str] = []
        environment = {f"MASKLOOP_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", "up", "--port", "0", "--data-dir", str(data_dir), *options],
            # Threads slow down operations on tensors of a few pixels.
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
        """The address that it printed when it became ready; None before."""
        found = [re.search(r"ready: open (http://\S+)", line) for line in self.lines]
        return next((match[1] for match in found if match), None)

    def ready(self) -> str:
        """Wait until it is ready, and return its address."""
        eventually(lambda: self.url is not None or self.process.poll() is not None, within_s=60)
        assert self.url is not None, "\n".join(self.lines)
        return self.url

    def client(self, **options: Any) -> httpx.Client:
        """Wait until it is ready, and return an HTTP client with the key of the first start."""
        url, key = self.ready(), read_local_key(self.data_dir)
        assert key is not None
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, **options)

    def members(self) -> dict[int, str]:
        """Command line by process id of every living process of the group, including the supervisor."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            # A zombie has no command line.
            if str(self.data_dir) in command and int(entry.name) != os.getpid():
                found[int(entry.name)] = command
        return found

    def end(self, number: signal.Signals) -> int:
        """Send a signal to the supervisor only, and wait for its end."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(5)
        return code


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Group]]:
    """Start groups; their remaining processes are killed at the end."""
    groups: list[Group] = []

    def start(*options: str, name: str = "group", **settings: Any) -> Group:
        groups.append(Group(tmp_path / f"{name}{len(groups)}", *options, **settings))
        return groups[-1]

    yield start
    for group in groups:
        for pid in group.members():
            os.kill(pid, signal.SIGKILL)
        group.process.wait()
        if group.process.stderr is not None:
            group.process.stderr.close()
