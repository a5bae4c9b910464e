"""Content-addressed storage of images and masks: a blob's name is the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, Protocol

Collection = Literal["images", "masks"]
COLLECTIONS: tuple[Collection, ...] = ("images", "masks")


class BlobStore(Protocol):
    """A blob appears complete or not at all. A name that is no SHA-256 in lower-case hex raises FileNotFoundError."""

    def put(self, collection: Collection, sha256: str, data: bytes) -> None:
        """Store data durably, unless it exists; `sha256` is its name, from `sha256_of`."""

    def confirm(self, collection: Collection, sha256: str) -> None:
        """Tell that a row with the blob is committed; one that is never confirmed may be deleted after some time."""

    def doubt(self, collection: Collection, sha256: str) -> None:
        """Tell that a row may let go of a blob. Confirm it after that; else a sweep looks whether a row needs it."""

    def read(self, collection: Collection, sha256: str) -> bytes:
        """Return the bytes. Raises FileNotFoundError."""

    def copy(self, collection: Collection, sha256: str, target: Path) -> None:
        """Make a blob available at a local path, which must not exist, durably but for the entry of its folder.

        Raises FileNotFoundError.
        """

    def delete(self, collection: Collection, sha256: str) -> None:
        """Delete a blob durably, if it exists."""


def sha256_of(data: bytes) -> str:
    """Return the name of a blob."""
    return hashlib.sha256(data).hexdigest()


def relative_path(collection: Collection, sha256: str) -> str:
    """Return COLLECTION/ab/abcd... Raises FileNotFoundError if the name is no SHA-256."""
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise FileNotFoundError(sha256)
    return f"{collection}/{sha256[:2]}/{sha256}"
