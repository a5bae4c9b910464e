"""Make deletions complete: files of deleted images, masks of their past labels, copies and pictures in run folders.

Idempotent; what an active run uses is deleted after its end.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import structlog
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from service.images.image_store import ImageStore
from service.runs.worker.attempt_folder import close_attempts
from service.storage.database import Database
from service.storage.durable_files import write_durably
from service.storage.tables import ACTIVE, DeletedImage, Run, RunLabel, utc_now

log = structlog.stdlib.get_logger(__name__)

COPIES = ("dataset", "bundle")
"""Folders of a run that only the run itself needs: its data set, and the bundle that was imported."""
BATCH = 100
PICTURE = re.compile(rb"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]*")
NO_PICTURE = b"data:,"


def delete_copies(run_folder: Path) -> None:
    """Delete the data set and the imported bundle of a run that has ended, also unfinished ones."""
    close_attempts(run_folder)
    for path in (*(run_folder / name for name in COPIES), *run_folder.glob(".*.partial")):
        shutil.rmtree(path, ignore_errors=True)


def sweep_deletions(database: Database, images: ImageStore, runs_folder: Path) -> int:
    """Delete copies of ended runs, then complete up to `BATCH` deletions; return how many were completed."""
    _delete_leftovers(database, runs_folder)
    with database.read() as session:
        pending = session.scalars(
            select(DeletedImage).where(DeletedImage.completed_at.is_(None)).order_by(DeletedImage.sequence).limit(BATCH)
        ).all()
        ready = [(deleted, _labels(session, deleted)) for deleted in pending if not _in_use(session, deleted)]
    for deleted, labels in ready:
        _complete(images, runs_folder, deleted, labels)
        with database.write() as session:
            session.get_one(DeletedImage, deleted.sequence).completed_at = utc_now()
    if ready:
        log.info("deletions completed", images=len(ready))
    return len(ready)


def _in_use(session: Session, deleted: DeletedImage) -> bool:
    """Whether an active run may have a copy of the image."""
    return bool(session.scalar(select(exists().where(Run.status.in_(ACTIVE), Run.image_sequence >= deleted.sequence))))


def _labels(session: Session, deleted: DeletedImage) -> list[RunLabel]:
    """Labels of the image in the snapshots of runs."""
    return list(session.scalars(select(RunLabel).where(RunLabel.image_id == deleted.image_id)))


def _complete(images: ImageStore, runs_folder: Path, deleted: DeletedImage, labels: list[RunLabel]) -> None:
    images.delete_unused_image(deleted.image_id)
    for mask in {deleted.mask_sha256, *(label.mask_sha256 for label in labels)} - {None}:
        images.delete_unused_mask(str(mask))
    for label in labels:
        _remove_pictures(runs_folder / label.run_id / "train" / "report.html")


def _remove_pictures(report: Path) -> None:
    """Empty all pictures of a report, which shows validation images without their ids."""
    if report.exists():
        page = report.read_bytes()
        emptied = PICTURE.sub(NO_PICTURE, page)
        if emptied != page:
            write_durably(report, emptied)


def _delete_leftovers(database: Database, runs_folder: Path) -> None:
    """Delete the copies of runs that ended without their worker, or were killed while they deleted them."""
    folders = {path.parent for name in COPIES for path in runs_folder.glob(f"*/{name}")}
    folders |= {path.parent for pattern in (".*.partial", "attempt-*") for path in runs_folder.glob(f"*/{pattern}")}
    if not folders:
        return
    with database.read() as session:
        active = set(session.scalars(select(Run.id).where(Run.status.in_(ACTIVE))))
    for folder in folders:
        if folder.name not in active:
            delete_copies(folder)
