"""Deletion of models and of runs' files, by people and by retention. Rows stay, and say what was deleted and why.

A row is marked first; then nothing uses the files any more. They are deleted after it, and if that is interrupted, the
worker's sweep continues.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import select

from service.analyses.analysed_range import forget_model
from service.errors import BundleInvalid, NotDeletable
from service.models.activations import existing_model, lock_activations
from service.models.deleted_bundles import mark_deleted, read_raw_manifest
from service.models.model_store import ModelStore
from service.retention.run_folder import delete_run_files, has_run_files
from service.retention.usage import best_version, models_in_use, runs_in_use
from service.runs.leases.liveness import Liveness
from service.runs.run_store import add_event, existing_run
from service.settings import Settings
from service.storage.database import Database
from service.storage.deletion_columns import DeletionReason
from service.storage.tables import Model, Run, utc_now
from service.storage.vector_file import VectorFolder

log = structlog.stdlib.get_logger(__name__)

GRACE_S = 60.0
"""Time between the mark and the deletion of a bundle's files: a request may be loading it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deletion:
    """Deletes models and the files of runs. Files of runs are deleted on the machine that has them."""

    settings: Settings
    database: Database
    models: ModelStore
    vectors: VectorFolder
    liveness: Liveness

    @property
    def runs_folder(self) -> Path:
        """Folder of the runs."""
        return self.settings.data_dir / "runs"

    def delete_model(self, version: str, reason: DeletionReason, key_name: str | None = None) -> Model:
        """Delete a model, unless it was deleted. Raises ModelNotFound, or NotDeletable if it is in use."""
        found = self.models.get(version)
        if found.state == "deleted":
            return found
        best, manifest = best_version(self.models), self._raw_manifest(version)
        with self.database.write() as session:
            lock_activations(session)
            self.database.lock(session, version)
            model = existing_model(session, version)
            if model.state == "deleted":
                return model
            why = models_in_use(session, best).get(version)
            if why is not None:
                raise NotDeletable(f"Version {version} cannot be deleted: {why}.")
            mark_deleted(model, manifest, reason, key_name)
        log.info("model deleted", version=version, reason=reason, key=key_name, bytes=model.bytes)
        return model

    def delete_run(self, run_id: str, reason: DeletionReason, key_name: str | None = None) -> Run:
        """Delete the files of a run but its recipe, unless they were. Raises RunNotFound, or NotDeletable."""
        best = best_version(self.models)
        with self.database.write() as session:
            lock_activations(session)
            run = existing_run(session, run_id)
            if run.deleted_at is not None:
                return run
            why = runs_in_use(session, models_in_use(session, best)).get(run_id)
            if why is not None:
                raise NotDeletable(f"The files of run {run_id} cannot be deleted: {why}.")
            run.deleted_at, run.deletion_reason, run.deleted_by = utc_now(), reason, key_name
            add_event(session, run_id, "deleted", reason=reason)
        log.info("files of a run deleted", run_id=run_id, reason=reason, key=key_name, bytes=run.bytes)
        self._complete_run(run_id)
        return run

    def complete(self, until: float) -> None:
        """Delete the files of what was marked before, until a time by the monotonic clock."""
        self.models.deleted.delete_leftovers()
        marked = (Model.deleted_at.is_not(None), Model.files_deleted_at.is_(None))
        with self.database.read() as session:
            models = session.scalars(select(Model).where(*marked)).all()
            unfinished = select(Run.id).where(Run.deleted_at.is_not(None), Run.files_deleted_at.is_(None))
            runs = session.scalars(unfinished).all()
        for run_id in runs:
            if time.monotonic() < until:
                self._complete_run(run_id)
        for model in models:
            waited = self.liveness.observe(f"deleted model {model.version}", model.deleted_at).silent_s >= GRACE_S
            if waited and forget_model(self.database, model.version, until):
                self.vectors.delete(model.version)
                self.models.deleted.delete_files(model.version)

    def _complete_run(self, run_id: str) -> None:
        if not has_run_files(self.runs_folder / run_id):
            # They may be on another machine.
            return
        delete_run_files(self.database, self.runs_folder / run_id)
        if has_run_files(self.runs_folder / run_id):
            log.warning("files of a run cannot be deleted; it is tried again", run_id=run_id)
            return
        with self.database.write() as session:
            existing_run(session, run_id).files_deleted_at = utc_now()

    def _raw_manifest(self, version: str) -> dict[str, object] | None:
        try:
            return read_raw_manifest(self.models.bundle(version).folder)
        except BundleInvalid as error:
            log.warning("the manifest of a deleted model cannot be kept", version=version, reason=str(error))
            return None
