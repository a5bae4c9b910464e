"""Blobs as files of a folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from service.storage.blob_store import Collection, relative_path
from service.storage.durable_files import copy_durably, sync_folder


class LocalBlobs:
    """A `BlobStore` of files ROOT/COLLECTION/ab/abcd...

    A file that is not confirmed has a second name, or an empty file with that name, in ROOT/unconfirmed/COLLECTION, by
    which a sweep finds those that a killed process or a failed transaction has left.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, collection: Collection, sha256: str, data: bytes) -> None:
        """Store data durably, unless it exists."""
        target = self._target(collection, sha256)
        # Repeated if another request, which stored the same bytes, confirms them meanwhile.
        while not target.exists():
            second = unconfirmed_folder(self._root, collection) / f"{sha256}.{uuid4().hex}"
            for folder in (target.parent, second.parent):
                folder.mkdir(parents=True, exist_ok=True)
            _write_flushed(second, data)
            with suppress(FileNotFoundError):
                _give_name(second, target)
            sync_folder(target.parent)

    def confirm(self, collection: Collection, sha256: str) -> None:
        """Tell that a row with the blob is committed."""
        for path in unconfirmed_folder(self._root, collection).glob(f"{sha256}.*"):
            path.unlink(missing_ok=True)

    def doubt(self, collection: Collection, sha256: str) -> None:
        """Tell that a row may let go of a blob."""
        mark = unconfirmed_folder(self._root, collection) / f"{sha256}.{uuid4().hex}"
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        # Before the row: the database may be on another disk.
        sync_folder(mark.parent)

    def read(self, collection: Collection, sha256: str) -> bytes:
        """Return the bytes. Raises FileNotFoundError."""
        return self._target(collection, sha256).read_bytes()

    def copy(self, collection: Collection, sha256: str, target: Path) -> None:
        """Link the file to a local path, or copy it if that is another file system. Raises FileNotFoundError."""
        source = self._target(collection, sha256)
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError:
            # Another file system, or one without hard links.
            copy_durably(source, target)

    def delete(self, collection: Collection, sha256: str) -> None:
        """Delete a blob durably, if it exists."""
        target = self._target(collection, sha256)
        target.unlink(missing_ok=True)
        # Whoever deleted it may have been killed before this.
        if target.parent.exists():
            sync_folder(target.parent)

    def _target(self, collection: Collection, sha256: str) -> Path:
        return self._root / relative_path(collection, sha256)


def unconfirmed_folder(root: Path, collection: Collection) -> Path:
    """Return the folder of the second names of files that are not confirmed."""
    return root / "unconfirmed" / collection


def _write_flushed(file: Path, data: bytes) -> None:
    try:
        with file.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _give_name(file: Path, name: Path) -> None:
    try:
        name.hardlink_to(file)
    except FileExistsError:
        # Another request has stored the same bytes.
        file.unlink(missing_ok=True)
    except FileNotFoundError:
        raise
    except OSError:
        # A file system without hard links.
        file.rename(name)
