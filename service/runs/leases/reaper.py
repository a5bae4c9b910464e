"""Recover runs whose worker died or hangs: queue them again, or fail them after too many attempts."""

from __future__ import annotations

import structlog
from sqlalchemy import select

from service.process_identity import has_ended
from service.runs.leases.attempts import end_attempt
from service.runs.leases.liveness import Liveness
from service.storage.database import Database
from service.storage.tables import Run

log = structlog.stdlib.get_logger(__name__)

# A process that was stopped or suspended itself sees old heartbeats at first, possibly its own.
MIN_OBSERVATIONS = 3


def reap(database: Database, liveness: Liveness) -> list[str]:
    """Queue runs whose worker has ended or is silent, or fail them; return the ids of the queued ones.

    A worker that ended on this machine is noticed at once, others by their silence over several calls.
    """
    with database.read() as session:
        running = session.scalars(select(Run).where(Run.status == "running")).all()
    return [run.id for run in running if _abandoned(run, liveness) and _end(database, run) == "queued"]


def _abandoned(run: Run, liveness: Liveness) -> bool:
    sighting = liveness.observe(f"run {run.id}", (run.fence, run.beats))
    silent = sighting.silent_s >= liveness.limit_s and sighting.observations >= MIN_OBSERVATIONS
    return silent or has_ended(run.holder)


def _end(database: Database, seen: Run) -> str | None:
    """End the attempt, unless its worker wrote or another process ended it since; return the new status."""
    same = (Run.id == seen.id, Run.status == "running", Run.fence == seen.fence, Run.beats == seen.beats)
    with database.write() as session:
        run = session.scalars(select(Run).where(*same).with_for_update()).one_or_none()
        if run is None:
            return None
        end_attempt(
            session,
            run,
            f"its worker died or stopped responding. See runs/{run.id}/log.txt and the system's log (out of memory? "
            "then lower the recipe's batch or crop).",
        )
        log.warning("run abandoned by its worker", run_id=run.id, attempts=run.attempts, now=run.status)
        return run.status
