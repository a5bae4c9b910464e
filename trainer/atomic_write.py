"""Atomic file replacement: a reader sees the old file or the complete new one."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.run_error import RunError

FULL_ERRORS = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
"""Parts of the messages about a full disk, or a user's quota. safetensors raises an error of its own."""
FULL_BYTES = 2**20
"""With less free space, a failed write is blamed on the disk: torch does not say so."""


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
    except Exception as error:
        if not any(text in str(error) for text in FULL_ERRORS) and shutil.disk_usage(path.parent).free >= FULL_BYTES:
            raise
        raise RunError(f"{path}: the disk is full; free space, or set another --out") from error
    finally:
        temporary.unlink(missing_ok=True)
