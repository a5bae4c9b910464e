"""Watch trainers and exporters: two programs must never write to one folder."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from pathlib import Path

from tests.chaos.process_list import Process, find_processes

POLL_S = 0.2


class ProgramWatch:
    """A thread that lists the programs several times a second."""

    def __init__(self, data_dir: Path) -> None:
        self.violations: list[str] = []
        self.overlap_s = 0.0
        """Time in which programs of two attempts ran, each in its own folder."""
        self._data_dir = data_dir
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="program watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ending.set()
        self._thread.join()

    def look(self, processes: list[Process]) -> None:
        """Compare the folders to which the programs write."""
        writers: dict[str, list[Process]] = defaultdict(list)
        for process in processes:
            if process.out is not None:
                writers[process.out].append(process)
        for folder, programs in writers.items():
            if len(programs) > 1:
                self.violations.append(f"{[each.pid for each in programs]} write to {folder} at the same time")
        if len(writers) > 1:
            self.overlap_s += POLL_S

    def _run(self) -> None:
        while not self._ending.wait(POLL_S):
            begin = time.monotonic()
            self.look(find_processes(self._data_dir))
            self._ending.wait(max(0.0, time.monotonic() - begin))
