"""Receive multipart forms and large uploads. Files are stored in a given folder, not in the system's temporary one."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import BadInput


def is_form(request: Request) -> bool:
    """Whether the body is a multipart form; any other body is the file itself, whatever its content type."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


@asynccontextmanager
async def form_file(request: Request, *, folder: Path | None) -> AsyncIterator[UploadFile]:
    """Yield the part `file` of a form.

    Args:
        request: Its body is read.
        folder: Folder for the temporary file; None: keep it in memory, for routes with a small limit.

    Raises:
        BadInput: The form is unreadable, or has no such part.
    """
    async with _files(request, folder, most=1, remedy="send one part named `file`") as parts:
        yield parts[0]


@asynccontextmanager
async def form_files(request: Request, *, folder: Path, most: int, remedy: str) -> AsyncIterator[list[UploadFile]]:
    """Yield the parts `file` of a form, at least one.

    Args:
        request: Its body is read.
        folder: Folder for temporary files without names.
        most: Largest number of files.
        remedy: Remedy for the error about an unreadable form.

    Raises:
        BadInput: The form is unreadable, has no such part, or too many.
    """
    async with _files(request, folder, most=most, remedy=remedy) as parts:
        yield parts


@asynccontextmanager
async def upload_file(request: Request, folder: Path) -> AsyncIterator[BinaryIO]:
    """Yield the body of a request, or the part `file` of its form, as an open temporary file: for large uploads.

    Args:
        request: Its body is read.
        folder: Folder for the temporary file.

    Raises:
        BadInput: The form holds no file.
    """
    if is_form(request):
        async with form_file(request, folder=folder) as part:
            yield part.file
        return
    with tempfile.TemporaryFile(dir=folder) as sink:
        async for chunk in request.stream():
            await run_in_threadpool(sink.write, chunk)
        await run_in_threadpool(sink.seek, 0)
        yield sink


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
    """Starlette's parser stores files in the system's temporary folder, which is small in a container."""

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
            # Nothing has been written to the file that it replaces.
            part.file.close()
            part.file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by `files`
        # Close it however the request ends, even in the middle of the file.
        self._files.callback(part.file.close)
