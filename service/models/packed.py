"""Unpack an uploaded bundle without trusting it: plain names only, sizes counted while writing."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from service.errors import BodyTooLarge, BundleInvalid
from service.models.bundle import MANIFEST

PLAIN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(json|onnx|npz|md|safetensors)$")
MAX_FILES = 16
CHUNK = 1 << 20


def unpack(packed: BinaryIO, folder: Path, *, max_bytes: int) -> None:
    """Write the files of a zipped bundle into a new folder.

    The files may stand at the top of the zip or in one folder. Every name is checked before anything is written, and
    the bytes are counted as they come out, whatever the headers claim.

    Raises:
        BundleInvalid: Not a zip, an unexpected name, or a damaged entry.
        BodyTooLarge: It unpacks to more than `max_bytes`.
    """
    try:
        with zipfile.ZipFile(packed) as archive:
            entries = _entries(archive)
            folder.mkdir(parents=True)
            left = max_bytes
            for name, info in entries.items():
                left -= _write(archive, info, folder / name, left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BundleInvalid(f"The upload is not a readable zip ({error}): zip the bundle folder again.") from None


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
    with archive.open(info) as source, target.open("xb") as sink:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > left:
                raise BodyTooLarge("The bundle unpacks to more than max_bundle_bytes: raise MASKLOOP_MAX_BUNDLE_BYTES.")
            sink.write(chunk)
    return written
