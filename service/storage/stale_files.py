"""Find temporary files and folders that a killed process has left.

They are told from those in use by observation, not by their times: clocks are set, and differ between machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path


class StaleFiles:
    """Entries of folders that have not changed for some time. `clock` returns seconds, and never goes back."""

    def __init__(
        self, places: list[tuple[Path, str]], unchanged_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Watch the entries that match a pattern, in each pair of folder and pattern."""
        self._places = places
        self._unchanged_s = unchanged_s
        self._clock = clock
        self._seen: dict[Path, tuple[object, float]] = {}

    def find(self) -> list[Path]:
        """Return the entries that earlier calls saw as they are now, for `unchanged_s` seconds."""
        now, seen = self._clock(), self._seen
        self._seen = {}
        for path in (path for folder, pattern in self._places for path in folder.glob(pattern)):
            state = list(_state(path))
            known, since = seen.get(path, (None, now))
            self._seen[path] = (state, since if known == state else now)
        return [path for path, (_, since) in self._seen.items() if now - since >= self._unchanged_s]


def _state(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the names, sizes and times of the files of an entry, which may vanish meanwhile."""
    for file in sorted((path, *path.rglob("*"))):
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        yield str(file), status.st_size, status.st_mtime_ns
