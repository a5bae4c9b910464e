"""Read access to runs, and cancellation. Their worker writes through `lease.Lease`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.errors import RunNotActive, RunNotFound
from service.storage.database import Database
from service.storage.tables import ACTIVE, Role, Run, RunEvent, RunImage, utc_now


class RunStore:
    """Runs, their snapshots and their events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, run_id: str) -> Run:
        """Get a run. Raises RunNotFound."""
        with self._database.read() as session:
            return existing_run(session, run_id)

    def list(self, limit: int = 100) -> Sequence[Run]:
        """List the runs, newest first."""
        with self._database.read() as session:
            return session.scalars(select(Run).order_by(Run.created_at.desc(), Run.id.desc()).limit(limit)).all()

    def events(self, run_id: str, after: int = 0, limit: int = 500) -> Sequence[RunEvent]:
        """Get at most `limit` events of a run after the id `after`, in order. Raises RunNotFound."""
        query = select(RunEvent).where(RunEvent.run_id == run_id, RunEvent.id > after).order_by(RunEvent.id)
        with self._database.read() as session:
            existing_run(session, run_id)
            return session.scalars(query.limit(limit)).all()

    def images(self, run_id: str, role: Role) -> Sequence[str]:
        """List the ids of the snapshot's images in a role, in a fixed order."""
        query = select(RunImage.image_id).where(RunImage.run_id == run_id, RunImage.role == role)
        with self._database.read() as session:
            return session.scalars(query.order_by(RunImage.image_id)).all()

    def count_judged(self) -> int:
        """Count the runs whose candidate was measured on validation images."""
        query = select(func.count()).select_from(Run).where(Run.miou_after.is_not(None))
        with self._database.read() as session:
            return session.scalars(query).one()

    def queued(self) -> Sequence[str]:
        """List the ids of queued runs."""
        with self._database.read() as session:
            return session.scalars(select(Run.id).where(Run.status == "queued").order_by(Run.created_at)).all()

    def request_cancel(self, run_id: str) -> Run:
        """Cancel a run: a queued one ends at once, a running one within seconds. Raises RunNotFound, RunNotActive."""
        with self._database.write() as session:
            run = existing_run(session, run_id)
            if run.status not in ACTIVE:
                raise RunNotActive(f"Run {run_id} has ended ({run.status}) and cannot be cancelled.")
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


def add_event(session: Session, run_id: str, event: str, **fields: Any) -> None:
    """Add an event to a run, in the caller's transaction."""
    session.add(RunEvent(run_id=run_id, event={"event": event, **fields}))


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
