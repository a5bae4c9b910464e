"""Blobs as objects of an object store that fsspec can reach, such as S3."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from service.storage.blob_store import Collection, relative_path
from service.storage.durable_files import flush_file
from service.storage.object_store import open_object_store, reported, reported_writes


class RemoteBlobs:
    """A `BlobStore` of objects URL/COLLECTION/ab/abcd... The protocol's client library reads its own credentials."""

    def __init__(self, url: str) -> None:
        """Open the store. Raises StorageFailed."""
        self._files, self._root = open_object_store(url)

    def put(self, collection: Collection, sha256: str, data: bytes) -> None:
        """Store data, unless it exists."""
        target = self._target(collection, sha256)
        with reported_writes():
            if not self._files.exists(target):
                self._files.pipe_file(target, data)

    def confirm(self, collection: Collection, sha256: str) -> None:
        """Do nothing: objects without a row are not looked for."""

    def doubt(self, collection: Collection, sha256: str) -> None:
        """Do nothing, for the same reason."""

    def read(self, collection: Collection, sha256: str) -> bytes:
        """Return the bytes. Raises FileNotFoundError."""
        with reported():
            return bytes(self._files.cat_file(self._target(collection, sha256)))

    def copy(self, collection: Collection, sha256: str, target: Path) -> None:
        """Download a blob to a local path. Raises FileNotFoundError."""
        target.write_bytes(self.read(collection, sha256))
        flush_file(target)

    def delete(self, collection: Collection, sha256: str) -> None:
        """Delete a blob, if it exists."""
        with suppress(FileNotFoundError), reported():
            self._files.rm_file(self._target(collection, sha256))

    def _target(self, collection: Collection, sha256: str) -> str:
        return f"{self._root}/{relative_path(collection, sha256)}"
