"""Unpack an uploaded bundle safely: plain file names, and a limit on the unpacked size."""

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
from service.upload_kinds import SEND_ZIP, recognise

PLAIN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(json|onnx|npz|md|safetensors)$")
# Files that macOS and Windows add to folders and archives; Windows writes their names in any case.
JUNK = re.compile(r"(^|/)(__MACOSX/|\._[^/]*$|\.DS_Store$|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
SIGNATURE, HEAD_BYTES = b"PK\x03\x04", 64 * 1024
MAX_FILES = 16
CHUNK = 1 << 20
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
# Errors of `zipfile` about damaged files.
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
    """Write the files of a zipped bundle, at its top or in one folder, into a new folder.

    All names are checked before anything is written; the unpacked bytes are counted, whatever the headers claim.

    Raises BundleInvalid, or BodyTooLarge if it unpacks to more than `max_bytes`.
    """
    with _open(packed) as archive:
        entries = _entries(archive)
        folder.mkdir(parents=True)
        remaining_bytes = max_bytes
        for name, info in entries.items():
            remaining_bytes -= _write(archive, info, folder / name, remaining_bytes)


def _open(packed: BinaryIO) -> zipfile.ZipFile:
    head = packed.read(HEAD_BYTES)
    is_zip = head.startswith(SIGNATURE) and b"\0" in head
    if not is_zip and (kind := recognise(head, SEND_ZIP)):
        raise BundleInvalid(f"The upload {kind}.")
    packed.seek(0)
    with _read_errors():
        return zipfile.ZipFile(packed)


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    # Some programs on Windows write backslashes.
    named = [(info.filename.replace("\\", "/"), info) for info in archive.infolist()]
    files = [(name, info) for name, info in named if not name.endswith("/") and not JUNK.search(name)]
    if len(files) > MAX_FILES:
        raise BundleInvalid(f"The zip holds {len(files)} files: a bundle has fewer than {MAX_FILES}.")
    prefix = _top_folder([name for name, _ in files])
    entries: dict[str, zipfile.ZipInfo] = {}
    for path, info in files:
        name = path.removeprefix(prefix)
        if not PLAIN_NAME.match(name) or name in entries:
            raise BundleInvalid(f"The zip holds {info.filename!r}: zip only the files of one bundle.")
        if info.compress_type not in METHODS:
            raise BundleInvalid(f"{name} uses an unsupported compression method: use deflate, or no compression.")
        entries[name] = info
    return entries


def _top_folder(names: list[str]) -> str:
    """Return the folder of the manifest with a trailing slash; empty at the top."""
    holder = next((name for name in names if name.rsplit("/", 1)[-1] == MANIFEST), None)
    if holder is None:
        raise BundleInvalid(f"The zip holds no {MANIFEST}: zip a folder that `exporter export` wrote.")
    return holder[: -len(MANIFEST)]


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, max_bytes: int) -> int:
    written = 0
    with _read_errors():
        source = archive.open(info)
    with source, target.open("xb") as sink:
        while chunk := _read(source):
            written += len(chunk)
            if written > max_bytes:
                raise BodyTooLarge("The bundle unpacks to more than max_bundle_bytes: raise MASKLOOP_MAX_BUNDLE_BYTES.")
            sink.write(chunk)
    return written


def _read(source: IO[bytes]) -> bytes:
    with _read_errors():
        return source.read(CHUNK)


@contextmanager
def _read_errors() -> Iterator[None]:
    """Convert errors of reading to BundleInvalid, but not those of writing, such as a full disk."""
    try:
        yield
    except DAMAGED as error:
        raise BundleInvalid(f"The upload is not a readable zip ({error}): zip the bundle folder again.") from None
