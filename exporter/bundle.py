"""A bundle on disk: it appears complete or not at all."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.manifest import Manifest, ManifestError

MANIFEST, GRAPH, PROBE, CARD, CHECKPOINT = (
    "manifest.json",
    "model.onnx",
    "probe.npz",
    "MODEL_CARD.md",
    "model.safetensors",
)


class BundleError(ValueError):
    """A bundle that must not be written or used; the message says why and what to do."""


@contextmanager
def new_bundle(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when the block ends well and is removed when it does not.

    A process that is killed inside the block leaves a folder with another name, which the next try removes.

    Raises:
        BundleError: `out` exists already.
    """
    if out.exists():
        raise BundleError(f"{out} exists already: remove it or name another folder; a bundle is never changed in place")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for path in (*partial.iterdir(), partial):
            _flush(path)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _flush(out.parent)


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle folder.

    Raises:
        BundleError: No bundle there, or a manifest that cannot be read.
    """
    file = bundle / MANIFEST
    if not file.is_file():
        raise BundleError(f"{bundle} is no bundle: it holds no {MANIFEST}; make one with `python -m exporter export`")
    try:
        return Manifest.from_json(file.read_bytes())
    except ManifestError as error:
        raise BundleError(f"{file}: {error}") from error


def sha256_of(file: Path) -> str:
    """64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Bytes and names on the disk before the rename: a power cut must not leave a bundle of empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
