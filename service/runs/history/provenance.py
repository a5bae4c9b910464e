"""From what a model was made: its run, the images and labels of the run's snapshot, and the models before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.models.model_store import ModelStore
from service.runs.run_store import deleted_since, existing_run
from service.storage.database import Database
from service.storage.tables import DeletedImage, Model, Run, RunLabel, Split


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A model before this one."""

    version: str
    run_id: str | None


@dataclass(frozen=True, slots=True)
class UsedLabel:
    """A label of the snapshot."""

    image_id: str
    mask_sha256: str | None
    split: Split
    group: str | None
    """Group of the image, or the id of its cluster of near-duplicates, its own if it is alone."""
    deleted: bool
    """Whether its image was deleted since."""
    accepted_from: str | None
    """The model version whose prediction it was; None: it was drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Numbers of images in the snapshot of a run."""

    image_sequence: int | None
    label_sequence: int | None
    unlabelled: int | None
    labelled: int
    val: int
    deleted: int
    """Images that were deleted since, labelled or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """From what a model was made. Without a run of this service, only its bundle knows."""

    version: str
    ancestors: list[Ancestor]
    """Parent, its parent, ..."""
    run: Run | None
    snapshot: Snapshot | None
    labels: list[UsedLabel]
    """A page, by image id."""
    next_cursor: str | None
    bundle: dict[str, Any]
    """`provenance` of the bundle: recipe, code version, data fingerprint."""


def describe_provenance(
    database: Database, models: ModelStore, version: str, *, limit: int, after: str = ""
) -> Provenance:
    """Describe a model, with at most `limit` labels after an image id.

    Raises ModelNotFound, or BundleInvalid if the bundle is damaged.
    """
    model, manifest = models.get(version), models.manifest(version)
    with database.read() as session:
        run = existing_run(session, model.run_id) if model.run_id else None
        labels = _labels(session, run, after, limit + 1) if run else []
        snapshot = _snapshot(session, run) if run else None
        ancestors = list(_ancestors(session, model))
    return Provenance(
        version=version,
        ancestors=ancestors,
        run=run,
        snapshot=snapshot,
        labels=labels[:limit],
        next_cursor=labels[limit - 1].image_id if len(labels) > limit else None,
        bundle=manifest.provenance,
    )


def _ancestors(session: Session, model: Model) -> Iterator[Ancestor]:
    seen = {model.version}
    version = model.parent
    # Bundles come from outside: their parents may form a circle.
    while version is not None and version not in seen:
        seen.add(version)
        parent = session.get(Model, version)
        yield Ancestor(version, parent.run_id if parent else None)
        version = parent.parent if parent else None


def _snapshot(session: Session, run: Run) -> Snapshot:
    counted = select(RunLabel.split, func.count()).where(RunLabel.run_id == run.id).group_by(RunLabel.split)
    labels = dict(session.execute(counted).all())
    deleted = select(func.count()).select_from(DeletedImage).where(deleted_since(run))
    return Snapshot(
        image_sequence=run.image_sequence,
        label_sequence=run.label_sequence,
        unlabelled=run.unlabelled,
        labelled=labels.get("labelled", 0),
        val=labels.get("val", 0),
        deleted=session.scalars(deleted).one(),
    )


def _labels(session: Session, run: Run, after: str, limit: int) -> list[UsedLabel]:
    query = select(RunLabel).where(RunLabel.run_id == run.id, RunLabel.image_id > after)
    rows = session.scalars(query.order_by(RunLabel.image_id).limit(limit)).all()
    ids = [row.image_id for row in rows]
    deleted = select(DeletedImage.image_id).where(deleted_since(run), DeletedImage.image_id.in_(ids))
    gone = set(session.scalars(deleted))
    return [
        UsedLabel(r.image_id, r.mask_sha256, r.split, r.group_name, r.image_id in gone, r.accepted_from) for r in rows
    ]
