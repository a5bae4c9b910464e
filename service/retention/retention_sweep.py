"""Delete what has reached its limits of age or bytes: unlabelled images, files of runs, models. Called by the sweep."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.errors import NotDeletable
from service.images.image_store import ImageStore
from service.models.deleted_bundles import folder_bytes
from service.retention.deletion import Deletion
from service.retention.expiry import (
    UNLABELLED_IMAGE,
    Expired,
    ExpiredImages,
    Limits,
    Stored,
    choose_expired,
    count_expired_images,
    excess_bytes,
    limits_of,
    newest_expired_image,
    stored_models,
    stored_runs,
)
from service.retention.operating_clock import OperatingClock, present_hour
from service.retention.run_folder import has_run_files, run_bytes
from service.retention.usage import best_version, models_in_use, runs_in_use
from service.runs.worker.deletion_sweep import complete_deletions
from service.storage.deletion_columns import DeletionReason
from service.storage.tables import ACTIVE, Image, Model, Pool, Run

log = structlog.stdlib.get_logger(__name__)

BUDGET_S = 2.0
"""The worker's heartbeat waits for the sweep."""
BATCH = 100
FILES_EVERY_S = 60.0
"""Interval at which models and runs are considered."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What is stored, and what a sweep would delete."""

    pool: Pool
    images: ExpiredImages
    stored_runs: list[Stored]
    runs: list[Expired]
    stored_models: list[Stored]
    models: list[Expired]


class Retention:
    """Belongs to one thread, except `preview`."""

    def __init__(
        self, deletion: Deletion, images: ImageStore, clock: OperatingClock, files_every_s: float = FILES_EVERY_S
    ) -> None:
        self._deletion = deletion
        self._settings = deletion.settings
        self._database = deletion.database
        self._images = images
        self._clock = clock
        self._files_every_s = files_every_s
        self._files_due_at = -float("inf")

    def sweep(self) -> None:
        """Delete for at most a few seconds; the next call continues."""
        hour, until = self._clock.advance(), time.monotonic() + BUDGET_S
        self._expire_images(hour, until)
        if time.monotonic() >= self._files_due_at:
            self._measure()
            finished = self._expire_files(hour, until)
            self._files_due_at = time.monotonic() + (self._files_every_s if finished else 0)
        self._deletion.complete(until)

    def preview(self, limits: Limits) -> Preview:
        """Tell what would be deleted now with these limits."""
        best = best_version(self._deletion.models)
        with self._database.read() as session:
            hour = present_hour(session)
            runs, models = _stored(session, best)
            return Preview(
                pool=session.get_one(Pool, 1),
                images=count_expired_images(session, limits.images, hour),
                stored_runs=runs,
                runs=choose_expired(runs, limits.runs, hour),
                stored_models=models,
                models=choose_expired(models, limits.models, hour),
            )

    def _expire_images(self, hour: int, until: float) -> None:
        deleted = 0
        while time.monotonic() < until:
            with self._database.read() as session:
                image_ids, reason = self._expired_batch(session, hour)
            if not image_ids:
                break
            rows = self._images.delete_unlabelled(image_ids, reason)
            complete_deletions(self._database, self._images, self._deletion.runs_folder, rows)
            deleted += len(rows)
        if deleted:
            log.info("unlabelled images deleted by retention", images=deleted)

    def _expired_batch(self, session: Session, hour: int) -> tuple[list[str], DeletionReason]:
        limit = limits_of(self._settings).images
        oldest = select(Image.id, Image.bytes).where(UNLABELLED_IMAGE).order_by(Image.sequence).limit(BATCH)
        newest = newest_expired_image(session, limit, hour)
        if newest and (old := session.execute(oldest.where(Image.sequence <= newest)).all()):
            return [image_id for image_id, _ in old], "age"
        excess, chosen = excess_bytes(session, limit), []
        for image_id, size in session.execute(oldest) if excess else ():
            if excess <= 0:
                break
            chosen.append(image_id)
            excess -= size
        return chosen, "bytes"

    def _expire_files(self, hour: int, until: float) -> bool:
        """Delete models and files of runs; return False if time was up."""
        best, limits = best_version(self._deletion.models), limits_of(self._settings)
        with self._database.write() as session:
            _note_usage(session, best, hour)
        with self._database.read() as session:
            runs, models = _stored(session, best)
        return self._delete(choose_expired(runs, limits.runs, hour), self._deletion.delete_run, until) and self._delete(
            choose_expired(models, limits.models, hour), self._deletion.delete_model, until
        )

    def _delete(self, expired: list[Expired], delete: Callable[[str, DeletionReason], object], until: float) -> bool:
        for each in expired:
            if time.monotonic() > until:
                return False
            try:
                delete(each.name, each.reason)
            except NotDeletable as error:
                # It came into use meanwhile.
                log.info("not deleted by retention", reason=str(error))
        return True

    def _measure(self) -> None:
        """Record the size of new models and of runs that have ended, if their files are on this machine."""
        ended = select(Run.id).where(Run.bytes.is_(None), Run.status.not_in(ACTIVE))
        with self._database.read() as session:
            runs = [self._deletion.runs_folder / run_id for run_id in session.scalars(ended)]
            unmeasured = select(Model.path).where(Model.bytes.is_(None), Model.deleted_at.is_(None))
            models = [self._settings.data_dir / path for path in session.scalars(unmeasured)]
        run_sizes = {folder.name: run_bytes(folder) for folder in runs if has_run_files(folder)}
        model_sizes = {folder.name: folder_bytes(folder) for folder in models if folder.is_dir()}
        if not run_sizes and not model_sizes:
            return
        with self._database.write() as session:
            for run_id, size in run_sizes.items():
                session.execute(update(Run).where(Run.id == run_id).values(bytes=size))
            for version, size in model_sizes.items():
                session.execute(update(Model).where(Model.version == version).values(bytes=size))


def _stored(session: Session, best: str | None) -> tuple[list[Stored], list[Stored]]:
    models = models_in_use(session, best)
    return stored_runs(session, runs_in_use(session, models)), stored_models(session, models)


def _note_usage(session: Session, best: str | None, hour: int) -> None:
    """Let the ages of what is in use, or new, begin at the present hour."""
    models = models_in_use(session, best)
    for key, in_use in ((Model.version, models), (Run.id, runs_in_use(session, models))):
        table = key.class_
        used = key.in_(in_use) & (table.unused_since != hour)
        session.execute(update(table).where(used | table.unused_since.is_(None)).values(unused_since=hour))
