"""An upload too large for memory: written to a temporary file while it arrives."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from service.errors import BadInput


@asynccontextmanager
async def spool(request: Request) -> AsyncIterator[BinaryIO]:
    """The body of a request, or the part `file` of its form, as a file open for reading.

    Raises:
        BadInput: The form holds no file.
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=8) as form:
            part = form.get("file")
            if not isinstance(part, UploadFile):
                raise BadInput("The form holds no file: send the bundle's zip as a part named `file`.")
            yield part.file
        return
    with tempfile.TemporaryFile() as sink:
        async for chunk in request.stream():
            await run_in_threadpool(sink.write, chunk)
        await run_in_threadpool(sink.seek, 0)
        yield sink
