"""Make deletions complete: files of deleted images, masks of their past labels, copies and pictures in run folders.

Idempotent; what an active run uses is deleted after its end.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
from sqlalchemy import Select, func, select, update
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
CHUNK = 20
"""Files that one transaction deletes: in an object store, each takes a while."""
BUDGET_S = 2.0
"""The worker's heartbeat waits for the sweep."""
PICTURE = re.compile(rb"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]*")
NO_PICTURE = b"data:,"


def delete_copies(run_folder: Path) -> None:
    """Delete the data set and the imported bundle of a run that has ended, also unfinished ones."""
    close_attempts(run_folder)
    for path in (*(run_folder / name for name in COPIES), *run_folder.glob(".*.partial")):
        shutil.rmtree(path, ignore_errors=True)


def sweep_deletions(database: Database, images: ImageStore, runs_folder: Path) -> int:
    """Delete copies of ended runs, then complete deletions for at most `BUDGET_S`; return how many were completed."""
    _delete_leftovers(database, runs_folder)
    ends_at, total = time.monotonic() + BUDGET_S, 0
    while time.monotonic() < ends_at:
        with database.read() as session:
            pending = session.scalars(_pending(session)).all()
        total += complete_deletions(database, images, runs_folder, pending)
        if len(pending) < BATCH:
            break
    if total:
        log.info("deletions completed", images=total)
    return total


def complete_deletions(
    database: Database, images: ImageStore, runs_folder: Path, pending: Sequence[DeletedImage]
) -> int:
    """Delete the files of deleted images; return how many are complete, as no active run has a copy of them."""
    if not pending:
        return 0
    with database.read() as session:
        labels = _labels(session, pending)
        in_use = _used_up_to(session)
    images.erase_vectors(*(deleted.sequence for deleted in pending))
    for start in range(0, len(pending), CHUNK):
        chunk = pending[start : start + CHUNK]
        images.delete_unused_images([deleted.image_id for deleted in chunk])
    for deleted in pending:
        _delete_masks(images, runs_folder, deleted, labels[deleted.image_id])
    done = [deleted.sequence for deleted in pending if deleted.sequence > in_use]
    with database.write() as session:
        rows = update(DeletedImage).where(DeletedImage.sequence.in_(done), DeletedImage.completed_at.is_(None))
        session.execute(rows.values(completed_at=utc_now()))
    return len(done)


def _pending(session: Session) -> Select[DeletedImage]:
    pending = select(DeletedImage).where(DeletedImage.completed_at.is_(None))
    return pending.where(DeletedImage.sequence > _used_up_to(session)).order_by(DeletedImage.sequence).limit(BATCH)


def _used_up_to(session: Session) -> int:
    """Newest sequence of an image of which an active run may have a copy; 0 without such a run."""
    return session.scalar(select(func.max(Run.image_sequence)).where(Run.status.in_(ACTIVE))) or 0


def _labels(session: Session, deleted: Sequence[DeletedImage]) -> dict[str, list[RunLabel]]:
    """Labels of the images in the snapshots of runs, by image."""
    found: dict[str, list[RunLabel]] = {each.image_id: [] for each in deleted}
    for label in session.scalars(select(RunLabel).where(RunLabel.image_id.in_(found))):
        found[label.image_id].append(label)
    return found


def _delete_masks(images: ImageStore, runs_folder: Path, deleted: DeletedImage, labels: list[RunLabel]) -> None:
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
