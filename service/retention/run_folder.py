"""The files of a run that are deleted: all but the recipe, with which the run can be repeated."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import delete, select

from service.models.deleted_bundles import folder_bytes
from service.runs.history.run_files import RECIPE
from service.runs.worker.deletion_sweep import COPIES, delete_copies
from service.storage.database import Database
from service.storage.tables import RunEvent

CHUNK = 1_000
"""Events that one transaction deletes."""


def has_run_files(folder: Path) -> bool:
    """Whether the folder is on this machine, and holds more than the recipe."""
    return any(_files(folder))


def run_bytes(folder: Path) -> int:
    """Size of what `delete_run_files` deletes, of a run that has ended."""
    return sum(folder_bytes(path) if path.is_dir() else path.stat().st_size for path in _files(folder))


def delete_run_files(database: Database, folder: Path) -> None:
    """Delete the files of an ended run, and its `progress` events, in short transactions."""
    delete_copies(folder)
    for path in _files(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    events = select(RunEvent.id).where(RunEvent.run_id == folder.name)
    progress = events.where(RunEvent.event["event"].as_string() == "progress").limit(CHUNK)
    while True:
        with database.write() as session:
            ids = session.scalars(progress).all()
            session.execute(delete(RunEvent).where(RunEvent.id.in_(ids)))
        if len(ids) < CHUNK:
            return


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.name not in (RECIPE, *COPIES))
