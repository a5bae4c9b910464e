"""Receive multipart forms and large uploads."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import BinaryIO, cast

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import BadInput

# Smaller parts of a form stay in memory: writing them to files takes a fifth of the time of an upload.
IN_MEMORY_BYTES = 256 * 1024


def is_form(request: Request) -> bool:
    """Whether the body is a multipart form; any other body is the file itself."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


@asynccontextmanager
async def form_files(
    request: Request, *, folder: Path | None, most: int = 1, remedy: str = "send one part named `file`"
) -> AsyncIterator[list[UploadFile]]:
    """Yield the parts `file` of a form, one to `most`. Raises BadInput; `remedy` ends the message about a bad form.

    Files above `IN_MEMORY_BYTES` are stored in `folder` as unnamed temporary files; None: in memory, for routes with a
    small limit.
    """
    with ExitStack() as files:
        try:
            form = await _Parser(request, folder, files, most).parse()
        except MultiPartException as error:
            raise BadInput(f"The form cannot be read ({error.message}): {remedy}.") from None
        parts = [(name, part) for name, part in form.multi_items() if isinstance(part, UploadFile)]
        if others := sorted({name for name, _ in parts if name != "file"}):
            raise BadInput(f"The form has files in parts named {', '.join(others)}: send each as a part named `file`.")
        if not parts:
            raise BadInput("The form contains no file: send it as a part named `file`.")
        yield [part for _, part in parts]


@asynccontextmanager
async def upload_file(request: Request, folder: Path) -> AsyncIterator[BinaryIO]:
    """Yield a large upload, the body or the part `file` of a form, as a temporary file. Raises BadInput."""
    if is_form(request):
        async with form_files(request, folder=folder) as parts:
            yield parts[0].file
        return
    with tempfile.TemporaryFile(dir=folder) as sink:
        async for chunk in request.stream():
            await run_in_threadpool(sink.write, chunk)
        await run_in_threadpool(sink.seek, 0)
        yield sink


class _Parser(MultiPartParser):
    """Parser that stores large files in `folder`: the system's temporary folder is small in a container."""

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
            part.file.close()
            spooled = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES, dir=str(self._folder))  # noqa: SIM115 - see below
            part.file = cast("BinaryIO", spooled)
        # Close it when the request ends, even if the file is incomplete.
        self._files.callback(part.file.close)
