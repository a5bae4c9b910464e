"""Bytes under the name of their own sha256. Local files now; another place is another class with the same face."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Literal
from uuid import uuid4

Room = Literal["images", "masks"]


class BlobStore:
    """A `BlobStore` in a folder: ROOT/ROOM/ab/abcd...; each file appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, room: Room, data: bytes) -> str:
        """Keep `data`, durably once this returns, and return its sha256 in hex. Putting it twice is putting it once."""
        sha256 = hashlib.sha256(data).hexdigest()
        target = self._target(room, sha256)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            write_durably(target, data)
        return sha256

    def get(self, room: Room, sha256: str) -> bytes:
        """See `BlobStore.get`."""
        return self.path(room, sha256).read_bytes()

    def path(self, room: Room, sha256: str) -> Path:
        """A local file with these bytes, to be read only.

        Raises:
            FileNotFoundError: They are not here.
        """
        target = self._target(room, sha256)
        if not target.is_file():
            raise FileNotFoundError(target)
        return target

    def delete(self, room: Room, sha256: str) -> None:
        """Forget the bytes; nothing happens where they are not here."""
        self._target(room, sha256).unlink(missing_ok=True)

    def _target(self, room: Room, sha256: str) -> Path:
        # Only names that we made ourselves reach the file system.
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise FileNotFoundError(sha256)
        return self._root / room / sha256[:2] / sha256


def write_durably(target: Path, data: bytes) -> None:
    """Write a file beside its place, flush it to the disk, and move it in: readers see all of it or nothing."""
    beside = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with beside.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(target)
        sync_folder(target.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file and flush the copy to the disk; the folder that it is in is the caller's to flush."""
    shutil.copyfile(source, target)
    with target.open("rb") as handle:
        os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names: only then does a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
