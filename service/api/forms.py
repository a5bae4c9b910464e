"""A form with one file in it. Where the file is kept while it arrives is said here, not by the system's settings."""

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
    return request.headers.get("content-type", "").startswith("multipart/form-data")


@asynccontextmanager
async def form_file(request: Request, *, folder: Path | None) -> AsyncIterator[UploadFile]:
    """The part `file` of a form.

    Args:
        request: Its body is read here.
        folder: Where the file is kept meanwhile; None: in memory, since the limit of its route is small.

    Raises:
        BadInput: No readable form, or none with such a part.
    """
    with ExitStack() as files:
        try:
            form = await _Parser(request, folder, files).parse()
        except MultiPartException as error:
            raise BadInput(f"The form cannot be read ({error.message}): send one part named `file`.") from None
        part = form.get("file")
        if not isinstance(part, UploadFile):
            raise BadInput("The form holds no file: send it as a part named `file`.")
        yield part


class _Parser(MultiPartParser):
    """Starlette's own spools every file into the system's temporary folder, which in a container is small."""

    spool_max_size = sys.maxsize

    def __init__(self, request: Request, folder: Path | None, files: ExitStack) -> None:
        super().__init__(request.headers, request.stream(), max_files=1, max_fields=8)
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
