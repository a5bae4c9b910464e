"""Content-addressed storage: files named by their SHA-256."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Literal
from uuid import uuid4

Collection = Literal["images", "masks"]


class BlobStore:
    """Files ROOT/COLLECTION/ab/abcd..., each of which appears complete or not at all."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, collection: Collection, data: bytes) -> str:
        """Store data durably, unless it exists, and return its SHA-256 in hex."""
        sha256 = hashlib.sha256(data).hexdigest()
        target = self._target(collection, sha256)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            write_durably(target, data)
        return sha256

    def path(self, collection: Collection, sha256: str) -> Path:
        """Return the path of the file, for reading. Raises FileNotFoundError."""
        target = self._target(collection, sha256)
        if not target.is_file():
            raise FileNotFoundError(target)
        return target

    def copy(self, collection: Collection, sha256: str, target: Path) -> None:
        """Make a blob available at a local path, by a hard link if possible. Raises FileNotFoundError."""
        source = self.path(collection, sha256)
        try:
            os.link(source, target)
        except OSError:
            # Another file system, or one without hard links.
            shutil.copyfile(source, target)

    def delete(self, collection: Collection, sha256: str) -> None:
        """Delete a blob, if it exists."""
        self._target(collection, sha256).unlink(missing_ok=True)

    def _target(self, collection: Collection, sha256: str) -> Path:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise FileNotFoundError(sha256)
        return self._root / collection / sha256[:2] / sha256


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
    with target.open("rb") as handle:
        os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk: only then does a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
