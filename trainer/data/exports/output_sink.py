"""Where an export is written: a folder, or a ZIP archive, also one that is streamed."""

import zipfile
from pathlib import Path
from typing import IO, Protocol

COMPRESSION = 6
TEXTS = (".json", ".csv", ".txt", ".toml", ".xml", ".md")


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
        self._archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED)

    def add(self, path: str, data: bytes) -> None:
        """See Sink."""
        # Images and masks are compressed already. They are not stored: programs that read an archive from a pipe would
        # not find the end of an entry whose size was not known before it.
        level = COMPRESSION if path.endswith(TEXTS) else 0
        # With a fixed time, equal data sets give equal archives.
        self._archive.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED, level)

    def close(self) -> None:
        """Write the end of the archive, without which it cannot be read."""
        self._archive.close()
