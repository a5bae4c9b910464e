"""Atomic file replacement: a reader sees the old file or the complete new one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the same folder; on success, flush it to disk and rename it to `path`."""
    # A fixed name, so that the next run overwrites what a killed run left.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.chmod(0o644)  # safetensors creates it as 0600; the API may run as another user
        with temporary.open("r+b") as file:  # Windows can flush only a file that is open for writing
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
