"""Forms with files in them. Where a file is kept while it arrives is said here, not by the system's settings."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import BadInput


def is_form(request: Request) -> bool:
    """Whether the body is a form; of all other content types the bytes themselves say what they are."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


@asynccontextmanager
async def form_file(request: Request, *, folder: Path | None) -> AsyncIterator[UploadFile]:
    """The part `file` of a form.

    Args:
        request: Its body is read here.
        folder: Where the file is kept meanwhile; None: in memory, since the limit of its route is small.

    Raises:
        BadInput: No readable form, or none with such a part.
    """
    async with _files(request, folder, most=1, remedy="send one part named `file`") as parts:
        yield parts[0]


@asynccontextmanager
async def form_files(request: Request, *, folder: Path, most: int, remedy: str) -> AsyncIterator[list[UploadFile]]:
    """The parts `file` of a form, at least one.

    Args:
        request: Its body is read here.
        folder: Where the files are kept meanwhile, without names.
        most: How many there may be.
        remedy: What to do about a form that cannot be read.

    Raises:
        BadInput: No readable form, none with such a part, or more files than that.
    """
    async with _files(request, folder, most=most, remedy=remedy) as parts:
        yield parts


@asynccontextmanager
async def _files(request: Request, folder: Path | None, *, most: int, remedy: str) -> AsyncIterator[list[UploadFile]]:
    with ExitStack() as files:
        try:
            form = await _Parser(request, folder, files, most).parse()
        except MultiPartException as error:
            raise BadInput(f"The form cannot be read ({error.message}): {remedy}.") from None
        parts = [part for part in form.getlist("file") if isinstance(part, UploadFile)]
        if not parts:
            raise BadInput("The form holds no file: send it as a part named `file`.")
        yield parts


class _Parser(MultiPartParser):
    """Starlette's own spools every file into the system's temporary folder, which in a container is small."""

    spool_max_size = sys.maxsize

    def __init__(self, request: Request, folder: Path | None, files: ExitStack, most: int) -> None:
        super().__init__(request.headers, request.stream(), max_files=most, max_fields=8)
        self._folder = folder
        self._files = files

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        part = self._current_part.file
        if part is None:
            return
        if self._folder is not None:
            # Nothing has been written to the one that it replaces.
            part.file.close()
            part.file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by `files`
        # However the request ends: also broken off, in the middle of the file.
        self._files.callback(part.file.close)
