"""Create a bundle folder atomically, read its manifest, and compute checksums."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.manifest import Manifest, ManifestError

MANIFEST, CARD, PROBE = "manifest.json", "MODEL_CARD.md", "probe.npz"
GRAPH, CHECKPOINT = "model.onnx", "model.safetensors"

FULL_ERRORS = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
"""Parts of the messages about a full disk, or a user's quota."""
FULL_BYTES = 2**20
"""With less free space, a failed write is blamed on the disk: torch and onnx do not always say so."""


class BundleError(ValueError):
    """A bundle that must not be written or used; the message states the remedy."""


@contextmanager
def new_bundle(out: Path) -> Iterator[Path]:
    """Yield a folder to fill; it is renamed to `out` if the block succeeds and removed if it raises.

    A killed process leaves a folder with another name, which the next attempt removes. Raises BundleError if `out`
    exists, or if the disk is full.
    """
    if out.exists():
        raise BundleError(f"{out} exists already, and bundles are never changed in place; remove it or name another")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for path in (*partial.iterdir(), partial):
            _fsync(path)
        partial.rename(out)
    except Exception as error:
        if not any(text in str(error) for text in FULL_ERRORS) and shutil.disk_usage(partial).free >= FULL_BYTES:
            raise
        raise BundleError(f"{out}: the disk is full; free space, or name a bundle on another disk") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _fsync(out.parent)


def read_manifest(bundle: Path) -> Manifest:
    """Read the manifest of a bundle. Raises BundleError if it is missing or invalid."""
    file = bundle / MANIFEST
    if not file.is_file():
        raise BundleError(f"{bundle} is not a bundle: it has no {MANIFEST}; make one with `python -m exporter export`")
    try:
        return Manifest.from_json(file.read_bytes())
    except ManifestError as error:
        raise BundleError(f"{file}: {error}") from error


def sha256_of(file: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    """Flush to disk: otherwise a power failure could leave empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
