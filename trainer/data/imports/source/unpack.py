"""Unpack a ZIP archive into a folder, with limits.

Names that would leave the folder are errors; bytes are counted while they are unpacked, whatever the headers claim.
"""

import re
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from trainer.data.imports.source.source_error import SourceError

JUNK = re.compile(r"(^|/)(__MACOSX/|\._[^/]*$|\.DS_Store$|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
"""Files that macOS and Windows add."""
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)
MAX_FILES, MAX_DEPTH, MAX_PART_BYTES = 200_000, 16, 200
CHUNK = 1 << 20


def unpack(archive: Path, folder: Path, *, max_bytes: int) -> None:
    """Write the files of a ZIP archive into an existing, empty folder. Raises SourceError."""
    try:
        with zipfile.ZipFile(archive) as opened:
            remaining_bytes = max_bytes
            for path, info in _entries(archive, opened).items():
                remaining_bytes -= _write(archive, opened, info, folder / path, remaining_bytes)
    except DAMAGED as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{archive}: is not a readable ZIP archive ({error}); zip the folder again") from error


def _entries(archive: Path, opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Files by their path. All are checked before anything is written."""
    # Some programs on Windows write backslashes.
    named = [(info.filename.replace("\\", "/"), info) for info in opened.infolist() if not info.is_dir()]
    files = {name: info for name, info in named if not name.endswith("/") and not JUNK.search(name)}
    if len(files) > MAX_FILES:
        raise SourceError(f"{archive}: holds {len(files)} files, the limit is {MAX_FILES}; import it in parts")
    for name, info in files.items():
        path = PurePosixPath(name)
        parts = path.parts
        if path.is_absolute() or ".." in parts or ":" in name or "\0" in name or len(parts) > MAX_DEPTH:
            raise SourceError(f"{archive}: holds the path {name!r}, which leaves the folder; zip the folder again")
        if max(len(part.encode()) for part in parts) > MAX_PART_BYTES:
            raise SourceError(f"{archive}: holds a name of more than {MAX_PART_BYTES} bytes, {name!r}; rename it")
        if info.flag_bits & 1:
            raise SourceError(f"{archive}: is encrypted; zip the folder without a password")
        if info.compress_type not in METHODS:
            raise SourceError(f"{archive}: compresses {name} with an unsupported method; use deflate")
    return files


def _write(archive: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, max_bytes: int) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(info) as source, target.open("xb") as sink:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > max_bytes:
                raise SourceError(
                    f"{archive}: unpacks to more than the limit; raise --max-unpacked-gb, or unpack it and import the "
                    "folder"
                )
            sink.write(chunk)
    return written
