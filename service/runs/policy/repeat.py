"""Repeat a run: the same images, labels with their masks, recipe and seed, as long as the images exist."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from service.errors import ImagesDeleted, RunNotRepeatable
from service.runs.history.run_files import RECIPE
from service.runs.run_store import deleted_since, existing_run
from service.storage.tables import DeletedImage, Run, RunLabel


def plan_repeat(session: Session, run_id: str, runs_folder: Path, *, without_deleted: bool) -> Run:
    """Return the row of a new run that repeats another, not yet in the database.

    Raises RunNotFound, RunNotRepeatable, or ImagesDeleted unless deleted images may be left out.
    """
    run = existing_run(session, run_id)
    _check_records(session, run, runs_folder)
    deleted = session.scalars(select(func.count()).select_from(DeletedImage).where(deleted_since(run))).one()
    if deleted and not without_deleted:
        raise ImagesDeleted(
            f"Run {run_id} cannot be repeated exactly: images of it that were deleted since: {deleted}. Add "
            "?without_deleted=true (--without-deleted on the command line) to repeat it without them."
        )
    return Run(reason="repeat", repeats=run.id, base_version=run.base_version, from_encoder=run.from_encoder)


def _check_records(session: Session, run: Run, runs_folder: Path) -> None:
    labels = exists().where(RunLabel.run_id == run.id)
    if run.deletion_sequence is None or not session.scalar(select(labels)):
        raise RunNotRepeatable(f"Run {run.id} took no snapshot of the pool: start a new run.")
    if session.scalar(select(labels.where(RunLabel.mask_sha256.is_(None)))):
        raise RunNotRepeatable(
            f"Run {run.id} is of a version that did not record which masks a run used: start a new run."
        )
    if not (runs_folder / run.id / RECIPE).is_file():
        raise RunNotRepeatable(f"The recipe of run {run.id} is missing in its folder: start a new run.")
