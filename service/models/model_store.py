"""The store of model versions: import, activation, rollback."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.classes.class_store import ClassStore
from service.errors import BundleInvalid
from service.models.activations import activate_version, check_not_deleted, existing_model, newest_activation
from service.models.bundle import MANIFEST, Bundle, Manifest, read_bundle
from service.models.bundle_archive import unpack
from service.models.bundle_mirror import BundleMirror
from service.models.deleted_bundles import DeletedBundles, folder_bytes, kept_manifest
from service.models.loading import load_model
from service.models.model_classes import ModelClasses
from service.settings import PACKAGE, Settings
from service.storage.database import Database
from service.storage.durable_files import copy_durably, sync_folder
from service.storage.tables import UNSERVABLE, Activation, Model, ModelState

log = structlog.stdlib.get_logger(__name__)

CARD = "MODEL_CARD.md"
OTHER_FILES = "Version {} exists with other files: export the bundle again."


class ModelStore:
    """Bundles in DATA/models/VERSION and their rows. Folders appear complete or not at all."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._root = settings.data_dir / "models"
        self._mirror = BundleMirror(settings.storage_url) if settings.storage_url else None
        self.deleted = DeletedBundles(database, self._root, self._mirror)
        self.classes = ModelClasses(ClassStore(database), self.activated, self.get, self.manifest)

    def import_folder(
        self,
        folder: Path,
        *,
        state: ModelState = "ready",
        run_id: str | None = None,
        classes_version: int | None = None,
    ) -> Model:
        """Copy a bundle into the store. A version that exists is returned.

        `classes_version` is the version of the class list for which it was trained; None: its names are those of the
        present one.
        If that had failed, or was deleted, its files are written again, and it is ready.
        The probe runs later, before the model serves. Raises BundleInvalid for a broken bundle, or if another bundle
        has its version.
        """
        manifest = read_bundle(folder).manifest
        with self._database.read() as session:
            known = session.get(Model, manifest.version)
        if known is not None:
            return self._import_existing(known, Bundle(folder, manifest))
        target = self._root / manifest.version
        if not target.exists():
            self._copy(folder, target)
        # Also if the folder exists: a former import may have ended before this line.
        self._mirror_bundle(target)
        row = Model(
            version=manifest.version,
            name=manifest.name,
            path=str(target.relative_to(self._settings.data_dir)),
            state=state,
            parent=manifest.parent,
            run_id=run_id,
            miou=manifest.miou,
            bytes=folder_bytes(target),
            classes_version=classes_version,
        )
        return self._insert(row)

    def import_upload(self, packed: BinaryIO) -> Model:
        """Unpack a zipped bundle, run its probe, and `import_folder` it.

        Raises BundleInvalid, BodyTooLarge if it unpacks to more than `max_bundle_bytes`, or Unavailable if this machine
        cannot run its probe.
        """
        folder = self._settings.tmp_dir / f"bundle-{uuid4().hex}"
        try:
            unpack(packed, folder, max_bytes=self._settings.max_bundle_bytes)
            load_model(read_bundle(folder, verify=False), self._settings)
            return self.import_folder(folder)
        finally:
            _delete(folder)

    def list(self) -> list[Model]:
        """List all versions, newest first."""
        with self._database.read() as session:
            return list(session.scalars(select(Model).order_by(Model.created_at.desc(), Model.version.desc())))

    def get(self, version: str) -> Model:
        """Get the row of a version. Raises ModelNotFound."""
        with self._database.read() as session:
            return existing_model(session, version)

    def bundle(self, version: str) -> Bundle:
        """Read the manifest of a version.

        Raises ModelNotFound, ModelNotServable if it was deleted, or BundleInvalid if it is damaged.
        """
        model = self.get(version)
        check_not_deleted(model)
        folder = self._settings.data_dir / model.path
        if self._mirror is not None and not folder.exists():
            # These copies only grow here.
            self.deleted.delete_leftovers()
            with suppress(FileNotFoundError):
                self._mirror.download(folder)
        return read_bundle(folder, verify=False)

    def manifest(self, version: str) -> Manifest:
        """Read the manifest of a version, which may be deleted. Raises ModelNotFound, or BundleInvalid."""
        model = self.get(version)
        return kept_manifest(model) if model.state == "deleted" else self.bundle(version).manifest

    def activated(self) -> Model | None:
        """Return the version to serve: of the newest activation whose model can serve."""
        with self._database.read() as session:
            activation = newest_activation(session)
            return existing_model(session, activation.version) if activation else None

    def activation(self) -> Activation | None:
        """Return the activation of the version to serve."""
        with self._database.read() as session:
            return newest_activation(session)

    def is_starter(self, version: str) -> bool:
        """Whether a version is the starter model, also that of another release. Raises ModelNotFound."""
        model, folder = self.get(version), PACKAGE / "starter"
        if model.run_id is not None or not (folder / MANIFEST).exists():
            return False
        return read_bundle(folder, verify=False).manifest.name == model.name

    def once_active(self) -> Sequence[Model]:
        """List the versions that are or were active and can serve, by their recorded mIoU, highest first."""
        query = select(Model).where(Model.version.in_(select(Activation.version)))
        query = query.where(Model.state.not_in(UNSERVABLE), Model.miou.is_not(None))
        with self._database.read() as session:
            return session.scalars(query.order_by(Model.miou.desc(), Model.created_at.desc())).all()

    def activate(self, version: str, reason: str) -> Activation:
        """Activate a version; processes follow within a second. Raises ModelNotFound."""
        with self._database.write() as session:
            return activate_version(session, version, reason)

    def mark(self, version: str, state: ModelState, *, error: str | None = None) -> None:
        """Set the state of a version; a deleted one stays deleted. Raises ModelNotFound."""
        with self._database.write() as session:
            model = existing_model(session, version)
            if model.state != "deleted":
                model.state, model.error = state, error

    def record_miou(self, session: Session, measured: Mapping[str, float]) -> None:
        """Record the mIoU (0..1) of versions, measured on the same images. Raises ModelNotFound."""
        for version, miou in measured.items():
            existing_model(session, version).miou = miou

    def ensure_start_model(self) -> None:
        """Import and activate the start model if it should serve.

        The starter model is activated only if nothing else is; one set by MASKLOOP_MODEL once, when it is first seen.

        Raises BundleInvalid if it is broken or missing, or StorageFailed.
        """
        folder, activated = self._settings.start_model, self.activated()
        if not self._settings.model:
            if activated is not None:
                return
            if not (folder / MANIFEST).exists():
                log.warning("this installation has no starter model: upload one to POST /v1/models")
                return
        version = read_bundle(folder, verify=False).manifest.version
        with self._database.read() as session:
            known = session.get(Model, version)
        if known is None or activated is None:
            self.activate(self.import_folder(folder).version, "start model")
        elif activated.version != version:
            log.warning(
                "MASKLOOP_MODEL is not active, since another version was activated after it",
                model=version,
                active=activated.version,
                remedy=f"POST /v1/models/{version}/activate",
            )

    def _import_existing(self, known: Model, bundle: Bundle) -> Model:
        if known.state == "deleted":
            if known.manifest is not None and kept_manifest(known).files != bundle.manifest.files:
                raise BundleInvalid(OTHER_FILES.format(known.version))
            self.deleted.begin_again(known.version)
            known = self.get(known.version)
        target = self._settings.data_dir / known.path
        try:
            same = read_bundle(target, verify=known.state == "failed").manifest.files == bundle.manifest.files
        except BundleInvalid:
            # The stored copy is damaged: replace it if the version had failed.
            if known.state != "failed":
                raise
            self._replace(bundle.folder, target)
            same = True
        if not same:
            raise BundleInvalid(OTHER_FILES.format(known.version))
        if known.state == "failed":
            self.mark(known.version, "ready")
        return self.get(known.version)

    def _replace(self, source: Path, target: Path) -> None:
        damaged = target.with_name(f".damaged-{uuid4().hex}")
        if target.exists():
            target.rename(damaged)
        self._copy(source, target)
        self._mirror_bundle(target)
        _delete(damaged)

    def _mirror_bundle(self, folder: Path) -> None:
        if self._mirror is not None:
            self._mirror.upload(folder, [name for name in _names(folder) if (folder / name).exists()])

    def _copy(self, source: Path, target: Path) -> None:
        temporary = self._root / f".import-{uuid4().hex}"
        temporary.mkdir(parents=True)
        try:
            for name in _names(source):
                if (source / name).exists():
                    copy_durably(source / name, temporary / name)
            read_bundle(temporary)
            sync_folder(temporary)
            temporary.rename(target)
            sync_folder(target.parent)
        except OSError:
            # Another process imported the same version first.
            if not target.exists():
                raise
        finally:
            _delete(temporary)

    def _insert(self, row: Model) -> Model:
        with self._database.write() as session:
            self._database.lock(session, row.version)
            known = session.get(Model, row.version)
            if known is not None:
                return known
            session.add(row)
        log.info("model imported", version=row.version, state=row.state)
        return row


def _names(folder: Path) -> list[str]:
    """Names of the files of a bundle."""
    return [MANIFEST, CARD, *(entry.file for entry in read_bundle(folder, verify=False).manifest.files)]


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
