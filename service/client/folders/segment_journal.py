"""`OUT/masks.jsonl`: which mask was computed from which image, so that an interrupted `segment` can continue."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

NAME = "masks.jsonl"


class SegmentJournal:
    """One line for each mask, the last of a mask counts."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, Any]] = {}
        if self._file.is_file():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                self._read(line)

    def has(self, mask: str, image: Path) -> bool:
        """Whether a mask was computed from the present bytes of an image. Raises OSError."""
        entry = self._entries.get(mask)
        return entry is not None and entry.get("sha256") == sha256_of(image)

    def models(self) -> set[str]:
        """The versions that computed the masks."""
        return {str(entry.get("model")) for entry in self._entries.values()}

    def add(self, mask: str, entry: dict[str, Any]) -> None:
        """Write the entry of a mask. Threads may call it."""
        with self._lock:
            self._entries[mask] = entry
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"mask": mask, **entry}, ensure_ascii=False) + "\n")

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self._entries[entry.pop("mask")] = entry
        except (ValueError, KeyError, AttributeError):
            # A line that was cut off.
            return


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
