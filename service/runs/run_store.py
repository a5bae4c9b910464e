"""Read access to runs, and cancellation. Their worker writes through `lease.Lease`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, exists, func, select, update
from sqlalchemy.orm import Session

from service.analyses.validation_neighbours import Numbered, ValidationNeighbours
from service.errors import RunNotActive, RunNotFound
from service.images.duplicate_clusters import cluster_id
from service.storage.database import Database
from service.storage.tables import (
    ACTIVE,
    DeletedImage,
    Image,
    Model,
    Pool,
    Run,
    RunEvent,
    RunLabel,
    Split,
    utc_now,
)
from service.storage.vector_file import VectorFolder
from service.webhooks.outbox import add_message

REPORTED = {"queued", "started", "finished"}
"""Events that the webhook reports; the last one as `run.judged`, `run.failed` or `run.cancelled`."""


class Unlabelled(NamedTuple):
    """An unlabelled image of a snapshot."""

    sequence: int
    image_id: str
    media_type: str
    near_validation: bool
    """Whether it is in a cluster of near-duplicates with a validation image."""


class RunStore:
    """Runs, their snapshots and their events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, run_id: str) -> Run:
        """Get a run. Raises RunNotFound."""
        with self._database.read() as session:
            return existing_run(session, run_id)

    def list(self, limit: int = 100, before: int | None = None) -> Sequence[Run]:
        """List the runs, newest first, of those with a number below `before`."""
        query = select(Run).order_by(Run.number.desc()).limit(limit)
        with self._database.read() as session:
            return session.scalars(query if before is None else query.where(Run.number < before)).all()

    def events(self, run_id: str, after: int = 0, limit: int = 500) -> Sequence[RunEvent]:
        """Get at most `limit` events of a run after the id `after`, in order. Raises RunNotFound."""
        query = select(RunEvent).where(RunEvent.run_id == run_id, RunEvent.id > after).order_by(RunEvent.id)
        with self._database.read() as session:
            existing_run(session, run_id)
            return session.scalars(query.limit(limit)).all()

    def labels(self, run_id: str) -> Sequence[RunLabel]:
        """List the labels of the snapshot, in a fixed order."""
        query = select(RunLabel).where(RunLabel.run_id == run_id).order_by(RunLabel.image_id)
        with self._database.read() as session:
            return session.scalars(query).all()

    def unlabelled(self, run_id: str, after: int = 0, limit: int = 1000) -> Sequence[Unlabelled]:
        """List unlabelled images of the snapshot, but deleted ones, in the order of arrival.

        `after` is the last sequence of the previous call.
        """
        is_label = exists().where(RunLabel.run_id == run_id, RunLabel.image_id == Image.id)
        with self._database.read() as session:
            newest = existing_run(session, run_id).image_sequence or 0
            near_validation = cluster_id().in_(_validation_clusters(run_id))
            query = (
                select(Image.sequence, Image.id, Image.media_type, near_validation)
                .where(Image.sequence > after, Image.sequence <= newest, ~is_label)
                .order_by(Image.sequence)
                .limit(limit)
            )
            return [Unlabelled(*row) for row in session.execute(query)]

    def labelled_sequences(self, run_id: str, split: Split) -> Numbered:
        """List sequences and ids of the labelled images of a split, but deleted ones."""
        query = select(Image.sequence, Image.id).join(RunLabel, RunLabel.image_id == Image.id)
        query = query.where(RunLabel.run_id == run_id, RunLabel.split == split)
        with self._database.read() as session:
            return [(sequence, image_id) for sequence, image_id in session.execute(query)]

    def validation_neighbours(
        self, run_id: str, version: str, vectors: VectorFolder, hash_of: Callable[[str], int]
    ) -> ValidationNeighbours:
        """Find near-duplicates of the run's validation images, as a model version sees them."""
        validation = self.labelled_sequences(run_id, "val")
        return ValidationNeighbours(self._database, vectors, version, validation, hash_of)

    def in_validation_clusters(self, run_id: str) -> frozenset[str]:
        """Ids of labels for training that are in a cluster of near-duplicates with a validation image."""
        query = select(Image.id).join(RunLabel, RunLabel.image_id == Image.id)
        query = query.where(RunLabel.run_id == run_id, RunLabel.split == "labelled")
        with self._database.read() as session:
            return frozenset(session.scalars(query.where(cluster_id().in_(_validation_clusters(run_id)))))

    def models_with_image(self, sequence: int) -> Sequence[str]:
        """List the versions whose run used the image with this sequence, if it was not deleted before, oldest first."""
        query = select(Model.version).join(Run, Run.id == Model.run_id).where(Run.image_sequence >= sequence)
        with self._database.read() as session:
            return session.scalars(query.order_by(Run.number)).all()

    def count_judged(self) -> int:
        """Count the runs whose candidate was measured on validation images."""
        query = select(func.count()).select_from(Run).where(Run.miou_after.is_not(None))
        with self._database.read() as session:
            return session.scalars(query).one()

    def queued(self) -> Sequence[str]:
        """List the ids of queued runs."""
        with self._database.read() as session:
            return session.scalars(select(Run.id).where(Run.status == "queued").order_by(Run.number)).all()

    def request_cancel(self, run_id: str) -> Run:
        """Cancel a run: a queued one ends at once, a running one within seconds. Raises RunNotFound, RunNotActive."""
        with self._database.write() as session:
            run = existing_run(session, run_id)
            if run.status not in ACTIVE:
                raise RunNotActive(f"Run {run_id} has ended ({run.status}) and cannot be cancelled.")
            if run.repeats is None:
                # Its images and labels do not make the next run due.
                images, labels = (select(each).scalar_subquery() for each in (Pool.image_sequence, Pool.label_sequence))
                run.image_sequence = func.coalesce(Run.image_sequence, images)
                run.label_sequence = func.coalesce(Run.label_sequence, labels)
            # Compare-and-set: a worker may claim it at the same time.
            if not _cancel_if_queued(session, run_id):
                session.execute(update(Run).where(Run.id == run_id).values(cancel_requested=True))
            session.flush()
            session.refresh(run)
            return run


def existing_run(session: Session, run_id: str) -> Run:
    """Get the row of a run. Raises RunNotFound."""
    run = session.get(Run, run_id)
    if run is None:
        raise RunNotFound(f"There is no run {run_id!r}: GET /v1/runs lists them.")
    return run


def deleted_since(run: Run) -> ColumnElement[bool]:
    """Condition on deleted images: they were in the snapshot of the run."""
    return and_(DeletedImage.deletion_sequence > run.deletion_sequence, DeletedImage.sequence <= run.image_sequence)


def add_event(session: Session, run_id: str, event: str, **fields: Any) -> None:
    """Add an event to a run, in the caller's transaction."""
    session.add(RunEvent(run_id=run_id, event={"event": event, **fields}))
    if event in REPORTED:
        add_message(session, f"run.{fields.get('status', event)}", {"run_id": run_id, **fields})


def _validation_clusters(run_id: str) -> Select[str]:
    """Clusters of near-duplicates that have a validation image."""
    labels = select(cluster_id()).join(RunLabel, RunLabel.image_id == Image.id)
    return labels.where(RunLabel.run_id == run_id, RunLabel.split == "val")


def _cancel_if_queued(session: Session, run_id: str) -> bool:
    done = session.execute(
        update(Run)
        .where(Run.id == run_id, Run.status == "queued")
        .values(status="cancelled", cancel_requested=True, finished_at=utc_now())
        .returning(Run.id)
    ).all()
    if done:
        add_event(session, run_id, "finished", status="cancelled")
    return bool(done)
