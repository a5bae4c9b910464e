"""Deletion of bundles: the row of the version stays, with the manifest; the files go from disk and object store.

The row says so first, so that no process begins to load the version; its files are deleted later. Whoever is killed in
between leaves a row from which the deletion is completed.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from sqlalchemy import select

from service.errors import BundleInvalid
from service.models.bundle import MANIFEST, Manifest
from service.models.bundle_mirror import BundleMirror
from service.storage.database import Database
from service.storage.deletion_columns import DeletionReason
from service.storage.tables import Model, utc_now

log = structlog.stdlib.get_logger(__name__)

ASIDE = ".deleted-"


def mark_deleted(
    model: Model, manifest: dict[str, Any] | None, reason: DeletionReason, key_name: str | None = None
) -> None:
    """Mark a version as deleted: it can neither be activated nor loaded any more."""
    model.state, model.error, model.manifest = "deleted", None, manifest
    model.deleted_at, model.deletion_reason, model.deleted_by = utc_now(), reason, key_name
    model.files_deleted_at = None


def kept_manifest(model: Model) -> Manifest:
    """Manifest of a deleted bundle. Raises BundleInvalid if it could not be read before the deletion."""
    if model.manifest is None:
        raise BundleInvalid(f"{model.version} was deleted, and its manifest was damaged: upload its bundle again.")
    # JSON mode accepts lists as tuples.
    return Manifest.model_validate_json(json.dumps(model.manifest))


class DeletedBundles:
    """Deletes the files of versions that are marked as deleted."""

    def __init__(self, database: Database, root: Path, mirror: BundleMirror | None) -> None:
        self._database = database
        self._root = root
        self._mirror = mirror

    def delete_files(self, version: str) -> None:
        """Delete the files of a version, if it still is deleted."""
        with self._database.write() as session:
            self._database.lock(session, version)
            model = session.get_one(Model, version)
            if model.state != "deleted":
                return
            if self._mirror is not None:
                self._mirror.delete(version)
            aside = self._move_aside(version)
            model.files_deleted_at = utc_now()
        shutil.rmtree(aside, ignore_errors=True)

    def delete_leftovers(self) -> None:
        """Delete what killed processes left, and copies of bundles that a process on another machine deleted."""
        if not self._root.exists():
            return
        folders = {path.name for path in self._root.iterdir()}
        with self._database.read() as session:
            gone = session.scalars(select(Model.version).where(Model.files_deleted_at.is_not(None)))
            leftover = folders.intersection(gone)
        for version in leftover:
            self.delete_files(version)
        for path in self._root.glob(f"{ASIDE}*"):
            shutil.rmtree(path, ignore_errors=True)

    def begin_again(self, version: str) -> None:
        """Let a version be imported again: it has failed until its files are complete."""
        self.delete_files(version)
        with self._database.write() as session:
            self._database.lock(session, version)
            model = session.get_one(Model, version)
            if model.state == "deleted":
                model.state, model.error = "failed", "the import of its bundle has not finished"
                model.deleted_at = model.deletion_reason = model.deleted_by = model.files_deleted_at = None
                model.manifest = model.bytes = model.unused_since = None

    def _move_aside(self, version: str) -> Path:
        aside = self._root / f"{ASIDE}{uuid4().hex}"
        with suppress(FileNotFoundError):
            (self._root / version).rename(aside)
        return aside


def read_raw_manifest(folder: Path) -> dict[str, Any]:
    """Read the whole manifest, which is valid, to keep it."""
    return dict(json.loads((folder / MANIFEST).read_bytes()))


def folder_bytes(folder: Path) -> int:
    """Size of the files of a folder, without hidden ones."""
    return sum(path.stat().st_size for path in folder.rglob("[!.]*") if path.is_file())
