"""Blobs as files of a folder."""

from __future__ import annotations

import os
from pathlib import Path

from service.storage.blob_store import Collection, relative_path
from service.storage.durable_files import copy_durably, write_durably


class LocalBlobs:
    """A `BlobStore` of files ROOT/COLLECTION/ab/abcd..."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, collection: Collection, sha256: str, data: bytes) -> None:
        """Store data durably, unless it exists."""
        target = self._target(collection, sha256)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            write_durably(target, data)

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
        """Delete a blob, if it exists."""
        self._target(collection, sha256).unlink(missing_ok=True)

    def _target(self, collection: Collection, sha256: str) -> Path:
        return self._root / relative_path(collection, sha256)
