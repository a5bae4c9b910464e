"""Write files so that a crash or a power cut leaves the old file or the new one, never a part."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from uuid import uuid4


def write_durably(target: Path, data: bytes) -> None:
    """Write a file atomically and durably: write a temporary file, flush it, rename it."""
    temporary = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with temporary.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file and flush the copy; the caller flushes the folder with `sync_folder`."""
    shutil.copyfile(source, target)
    flush_file(target)


def flush_file(path: Path) -> None:
    """Flush a file's content to disk; the caller flushes its folder with `sync_folder`."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk: only then does a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
