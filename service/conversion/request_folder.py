"""A folder for the files of one request."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import CancelScope


@asynccontextmanager
async def request_folder(parent: Path) -> AsyncIterator[Path]:
    """Yield a new folder, and delete it at the end.

    `parent` is `Settings.tmp_dir`: if this process is killed, the next start empties it.
    """
    folder = await asyncio.to_thread(_new_folder, parent)
    try:
        yield folder
    finally:
        with CancelScope(shield=True):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _new_folder(parent: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=parent.absolute()))
