"""An upload too large for memory: written to a temporary file while it arrives."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from service.api.forms import form_file, is_form


@asynccontextmanager
async def spool(request: Request, folder: Path) -> AsyncIterator[BinaryIO]:
    """The body of a request, or the part `file` of its form, as a file open for reading.

    Args:
        request: Its body is read here.
        folder: On whose disk the file is, without a name.

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
