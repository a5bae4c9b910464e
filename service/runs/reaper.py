"""Recover runs whose heartbeat stopped: queue them again, or fail them after too many attempts."""

from __future__ import annotations

from datetime import timedelta

import structlog
from sqlalchemy import select

from service.runs.run_store import add_event
from service.storage.database import Database
from service.storage.tables import Run, utc_now

log = structlog.stdlib.get_logger(__name__)

# A run that kills its worker, such as by its memory, must not do so forever.
MAX_ATTEMPTS = 3
MISSED_HEARTBEATS = 6


def reap(database: Database, heartbeat_s: float) -> list[str]:
    """Queue abandoned runs, or fail them after `MAX_ATTEMPTS`; return the ids of the queued ones."""
    last_seen = utc_now() - timedelta(seconds=MISSED_HEARTBEATS * heartbeat_s)
    with database.write() as session:
        abandoned = session.scalars(select(Run).where(Run.status == "running", Run.heartbeat_at < last_seen)).all()
        for run in abandoned:
            if run.attempts < MAX_ATTEMPTS:
                run.status = "queued"
                add_event(session, run.id, "interrupted", reason="its worker stopped responding")
            else:
                run.status, run.finished_at = "failed", utc_now()
                run.error = (
                    f"Its worker died {run.attempts} times. See runs/{run.id}/log.txt and the system's log (out of "
                    "memory? then lower the recipe's batch or crop), and start a new run."
                )
                add_event(session, run.id, "finished", status="failed", error=run.error)
            log.warning("run abandoned by its worker", run_id=run.id, attempts=run.attempts, now=run.status)
        return [run.id for run in abandoned if run.status == "queued"]
