"""The trainer's program of a request ends with the request."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.conversion.request_folder import request_folder
from service.conversion.trainer_process import trainer_process
from service.errors import ConversionFailed
from tests.service.conftest import MakeSettings, eventually

pytestmark = pytest.mark.anyio


async def test_program_and_its_children_are_killed_and_the_folder_deleted(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nsleep 100 &\necho $$ $!\nwait\n")
    python.chmod(0o755)
    async with request_folder(tmp_path) as folder:
        async with trainer_process(make_settings(trainer_python=str(python)), folder, "import") as process:
            ids = [int(word) for word in (await process.first_bytes()).split()]
            assert all(_is_alive(each) for each in ids)
        eventually(lambda: not any(_is_alive(each) for each in ids), within_s=10)
    assert not folder.exists()


async def test_hung_program_is_an_error(make_settings: MakeSettings, tmp_path: Path) -> None:
    (python := tmp_path / "python").write_text("#!/bin/sh\nexec sleep 100\n")
    python.chmod(0o755)
    settings = make_settings(trainer_python=str(python), stall_s=0.1)
    async with trainer_process(settings, tmp_path, "import") as process:
        with pytest.raises(ConversionFailed, match="raise MASKLOOP_STALL_S"):
            await process.events()


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    # A zombie is dead; nobody waits for it in a container without an init.
    return "\nState:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
