"""Find the processes of a data folder by their command lines, and send signals to them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal["supervisor", "api", "worker 1", "worker 2", "broker", "trainer", "exporter"]

PATTERNS: tuple[tuple[Role, str], ...] = (
    ("supervisor", r"-m service up "),
    ("api", r"-m service serve "),
    # The worker of `up` has a descriptor on which it reports.
    ("worker 1", r"-m service worker .*--ready-fd"),
    ("worker 2", r"-m service worker "),
    ("broker", r"valkey-server"),
    ("trainer", r"-m trainer train "),
    ("exporter", r"-m exporter export "),
)
OUT = re.compile(r" --out (\S+)")


@dataclass(frozen=True, slots=True)
class Process:
    """A living process that leads its process group."""

    pid: int
    role: Role
    command: str
    parent: int

    @property
    def out(self) -> str | None:
        """The folder to which a trainer or exporter writes."""
        found = OUT.search(self.command)
        return found[1] if found else None


def find_processes(data_dir: Path) -> list[Process]:
    """List the living processes whose command line names the data folder."""
    found = (_read(int(entry.name), str(data_dir)) for entry in Path("/proc").glob("[0-9]*"))
    return [process for process in found if process is not None]


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes that may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _read(pid: int, data_dir: str) -> Process | None:
    folder = Path(f"/proc/{pid}")
    try:
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, parent, group = fields[0], int(fields[1]), int(fields[2])
    # Valkey replaces its command line by its address.
    if state in "ZX" or group != pid or data_dir not in command:
        return None
    role = next((role for role, pattern in PATTERNS if re.search(pattern, command)), None)
    return Process(pid, role, command, parent) if role else None
