"""Unpack an uploaded bundle without trusting it: plain names only, sizes counted while writing."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from service.errors import BodyTooLarge, BundleInvalid
from service.models.bundle import MANIFEST
from service.models.zip_directory import check_directory

PLAIN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(json|onnx|npz|md|safetensors)$")
MAX_FILES = 16
# Folders have entries too.
MAX_ENTRIES, MAX_DIRECTORY_BYTES = 64, 64 * 1024
CHUNK = 1 << 20
# What every program writes. The other methods have decoders that fail in ways of their own.
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
# How `zipfile` says that a zip is damaged; OSError and ValueError where an offset points outside of it.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
)


def unpack(packed: BinaryIO, folder: Path, *, max_bytes: int) -> None:
    """Write the files of a zipped bundle into a new folder.

    The files may stand at the top of the zip or in one folder. Every name is checked before anything is written, and
    the bytes are counted as they come out, whatever the headers claim.

    Raises:
        BundleInvalid: Not a zip, an unexpected name, or a damaged entry.
        BodyTooLarge: It unpacks to more than `max_bytes`.
    """
    check_directory(packed, max_entries=MAX_ENTRIES, max_bytes=MAX_DIRECTORY_BYTES)
    with _damage():
        archive = zipfile.ZipFile(packed)
    with archive:
        entries = _entries(archive)
        folder.mkdir(parents=True)
        left = max_bytes
        for name, info in entries.items():
            left -= _write(archive, info, folder / name, left)


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MAX_FILES:
        raise BundleInvalid(f"The zip holds {len(infos)} files: a bundle has fewer than {MAX_FILES}.")
    prefix = _top_folder([info.filename for info in infos])
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removeprefix(prefix)
        if not PLAIN_NAME.match(name) or name in entries:
            raise BundleInvalid(f"The zip holds {info.filename!r}: zip nothing but the files of one bundle.")
        if info.compress_type not in METHODS:
            raise BundleInvalid(f"{name} is packed in an unusual way: zip with the method deflate, or with none.")
        entries[name] = info
    return entries


def _top_folder(names: list[str]) -> str:
    """The folder that holds the manifest, with its slash; empty where the manifest is at the top."""
    holder = next((name for name in names if name.rsplit("/", 1)[-1] == MANIFEST), None)
    if holder is None:
        raise BundleInvalid(f"The zip holds no {MANIFEST}: zip a folder that `exporter export` wrote.")
    return holder[: -len(MANIFEST)]


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, left: int) -> int:
    written = 0
    with _damage():
        source = archive.open(info)
    with source, target.open("xb") as sink:
        while chunk := _read(source):
            written += len(chunk)
            if written > left:
                raise BodyTooLarge("The bundle unpacks to more than max_bundle_bytes: raise MASKLOOP_MAX_BUNDLE_BYTES.")
            sink.write(chunk)
    return written


def _read(source: IO[bytes]) -> bytes:
    with _damage():
        return source.read(CHUNK)


@contextmanager
def _damage() -> Iterator[None]:
    """Around what only reads the zip: an error while writing, such as a full disk, is no fault of the upload's."""
    try:
        yield
    except DAMAGED as error:
        raise BundleInvalid(f"The upload is not a readable zip ({error}): zip the bundle folder again.") from None
