"""The key of the first start, stored in the data folder for programs on this machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

FILE_NAME = "api-key"


def read_local_key(data_dir: Path) -> str | None:
    """Read the key; None if the service never created one. Raises OSError if the file cannot be read."""
    try:
        return (data_dir / FILE_NAME).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def write_local_key(data_dir: Path, text: str) -> None:
    """Store a key atomically, readable by its owner only."""
    # mkstemp creates the file with mode 0600.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{FILE_NAME}-", dir=data_dir)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(data_dir / FILE_NAME)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
