"""Where an export is written: a folder, or a ZIP archive, also one that is streamed."""

import zipfile
from pathlib import Path
from typing import IO, Protocol


class Sink(Protocol):
    """Takes the files of an export, one after the other."""

    def add(self, path: str, data: bytes) -> None:
        """Write a file; `path` is relative, with "/" between folders."""


class FolderSink:
    """Writes into an existing folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, path: str, data: bytes) -> None:
        """See Sink."""
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


class ZipSink:
    """Writes a ZIP archive to a stream, which need not be seekable."""

    def __init__(self, stream: IO[bytes]) -> None:
        # Stored: images and masks are compressed already.
        self._archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED)

    def add(self, path: str, data: bytes) -> None:
        """See Sink."""
        kind = zipfile.ZIP_DEFLATED if path.endswith((".json", ".csv")) else zipfile.ZIP_STORED
        # With a fixed time, equal data sets give equal archives.
        self._archive.writestr(zipfile.ZipInfo(path), data, kind)

    def close(self) -> None:
        """Write the end of the archive, without which it cannot be read."""
        self._archive.close()
