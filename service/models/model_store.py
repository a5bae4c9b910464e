"""The versions: where a bundle comes in, which one should serve, and the way back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import structlog
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from service.errors import BundleInvalid, ModelNotFound, ModelNotServable, NothingToRollBack
from service.models.bundle import MANIFEST, Bundle, read_bundle
from service.models.bundle_archive import unpack
from service.settings import Settings
from service.storage.blob_store import copy_durably, sync_folder
from service.storage.database import Database
from service.storage.tables import Activation, Model, ModelState

log = structlog.stdlib.get_logger(__name__)

CARD = "MODEL_CARD.md"


class ModelStore:
    """Bundles under DATA/models/VERSION and their rows. A folder there is complete, or it is not there."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._root = settings.data_dir / "models"

    def import_folder(self, folder: Path, *, state: ModelState = "ready", run_id: str | None = None) -> Model:
        """Copy a bundle into the store; a version that is there already is left as it is and returned.

        Unless it had failed: then its files are put in order where they need it, and it may be tried again.

        The probe is not run here: whoever lets the model answer runs it (`engine.open_engine`).

        Args:
            folder: The bundle; it is read only.
            state: What it is in the store: "candidate" when a run made it, "ready" when a person brought it.
            run_id: The run that made it.

        Raises:
            BundleInvalid: The bundle is broken, or another one has its version.
        """
        manifest = read_bundle(folder).manifest
        with self._database.read() as session:
            known = session.get(Model, manifest.version)
        if known is not None:
            return self._again(known, Bundle(folder, manifest))
        target = self._root / manifest.version
        if not target.exists():
            self._copy(folder, target)
        row = Model(
            version=manifest.version,
            name=manifest.name,
            path=str(target.relative_to(self._settings.data_dir)),
            state=state,
            parent=manifest.parent,
            run_id=run_id,
            miou=manifest.miou,
        )
        return self._insert(row)

    def import_zip(self, packed: BinaryIO) -> Bundle:
        """Unpack an uploaded bundle beside the store and check it; `import_folder` its folder, then `discard` it.

        Raises:
            BundleInvalid: Not a zip, names that are no plain files, too large, or a broken bundle.
        """
        folder = self._settings.tmp_dir / f"bundle-{uuid4().hex}"
        try:
            unpack(packed, folder, max_bytes=self._settings.max_bundle_bytes)
            return read_bundle(folder)
        except BaseException:
            self.discard(folder)
            raise

    def discard(self, folder: Path) -> None:
        """Remove a folder that `import_zip` made."""
        shutil.rmtree(folder, ignore_errors=True)

    def list(self) -> list[Model]:
        """Every version, newest first."""
        with self._database.read() as session:
            return list(session.scalars(select(Model).order_by(Model.created_at.desc(), Model.version.desc())))

    def get(self, version: str) -> Model:
        """One version.

        Raises:
            ModelNotFound: There is none.
        """
        with self._database.read() as session:
            return _known(session, version)

    def bundle(self, version: str) -> Bundle:
        """The bundle of a version, its manifest read and its files not compared again.

        Raises:
            ModelNotFound: There is no such version.
            BundleInvalid: Its folder was damaged.
        """
        return read_bundle(self._settings.data_dir / self.get(version).path, verify=False)

    def desired(self) -> Model | None:
        """The version that should serve: the newest activation whose model has not failed since."""
        with self._database.read() as session:
            return session.scalars(_serving_order()).first()

    def activate(self, version: str, reason: str) -> Activation:
        """Make a version the one that should serve. Serving processes follow within a second or so.

        One that failed may be tried again: its probe is run before it serves in any case.

        Raises:
            ModelNotFound: There is no such version.
            ModelNotServable: The gate rejected it.
        """
        with self._database.write() as session:
            model = _known(session, version)
            if model.state == "rejected":
                raise ModelNotServable(
                    f"{version} is rejected ({model.error or 'not accepted by the gate'}): activate another."
                )
            model.state, model.error = "ready", None
            return _append(session, version, reason)

    def rollback(self, reason: str = "rollback") -> Activation:
        """Activate the version that served before the present one; rolling back twice comes forward again.

        Raises:
            NothingToRollBack: No other version has ever been active.
        """
        with self._database.write() as session:
            past = session.scalars(_serving_order()).all()
            earlier = next((m for m in past if m.version != past[0].version), None)
            if earlier is None:
                raise NothingToRollBack("No other version has been active: upload one, or activate it by name.")
            return _append(session, earlier.version, reason)

    def mark(self, version: str, state: ModelState, *, error: str | None = None, miou: float | None = None) -> None:
        """Record what became of a version; `miou` (0..1) replaces the manifest's when it is given.

        Raises:
            ModelNotFound: There is no such version.
        """
        with self._database.write() as session:
            model = _known(session, version)
            model.state = state
            model.error = error
            model.miou = model.miou if miou is None else miou

    def ensure_start_model(self) -> None:
        """Import and activate the model to begin with, unless the past has decided otherwise.

        The starter model of the package only fills an empty place: a newer package does not push out what was trained
        here. One given by name takes over when it is new here; when it is not, what was activated after it stays.

        Raises:
            BundleInvalid: The bundle is broken, or a folder given by name does not exist.
            StorageFailed: It cannot be read.
        """
        folder, desired = self._settings.start_model, self.desired()
        if not self._settings.model:
            if desired is not None:
                return
            if not (folder / MANIFEST).exists():
                log.warning("no starter model in this installation: upload one to POST /v1/models")
                return
        version = read_bundle(folder, verify=False).manifest.version
        with self._database.read() as session:
            known = session.get(Model, version)
        if known is None or desired is None:
            self.activate(self.import_folder(folder).version, "model to begin with")
        elif desired.version != version:
            log.warning(
                "the model given to begin with does not serve, since another was activated after it",
                given=version,
                serves=desired.version,
                remedy=f"POST /v1/models/{version}/activate makes it serve",
            )

    def _again(self, known: Model, bundle: Bundle) -> Model:
        """A bundle whose version is here already."""
        target = self._settings.data_dir / known.path
        try:
            same = read_bundle(target, verify=known.state == "failed").manifest.files == bundle.manifest.files
        except BundleInvalid:
            # The copy here is damaged, and here comes a sound one.
            if known.state != "failed":
                raise
            self._replace(bundle.folder, target)
            same = True
        if not same:
            raise BundleInvalid(f"Version {known.version} is here already with other files: export it anew.")
        if known.state == "failed":
            self.mark(known.version, "ready")
        return self.get(known.version)

    def _replace(self, source: Path, target: Path) -> None:
        damaged = target.with_name(f".damaged-{uuid4().hex}")
        if target.exists():
            target.rename(damaged)
        self._copy(source, target)
        self.discard(damaged)

    def _copy(self, source: Path, target: Path) -> None:
        beside = self._root / f".import-{uuid4().hex}"
        beside.mkdir(parents=True)
        try:
            names = [MANIFEST, CARD, *(entry.file for entry in read_bundle(source, verify=False).manifest.files)]
            for name in names:
                if (source / name).exists():
                    copy_durably(source / name, beside / name)
            read_bundle(beside)
            sync_folder(beside)
            beside.rename(target)
            sync_folder(target.parent)
        except OSError:
            # Another process was faster with the same version.
            if not target.exists():
                raise
        finally:
            self.discard(beside)

    def _insert(self, row: Model) -> Model:
        with self._database.write() as session:
            known = session.get(Model, row.version)
            if known is not None:
                return known
            session.add(row)
        log.info("model imported", version=row.version, state=row.state)
        return row


def _known(session: Session, version: str) -> Model:
    model = session.get(Model, version)
    if model is None:
        raise ModelNotFound(f"There is no model version {version!r}: GET /v1/models lists them.")
    return model


def _append(session: Session, version: str, reason: str) -> Activation:
    row = Activation(version=version, reason=reason)
    session.add(row)
    session.flush()
    log.info("model activated", version=version, reason=reason)
    return row


def _serving_order() -> Select[Model]:
    return select(Model).join(Activation).where(Model.state != "failed").order_by(Activation.id.desc())
