"""Runs whose worker died: noticed by their silence, and given to another worker."""

from __future__ import annotations

from datetime import timedelta

import structlog
from sqlalchemy import select

from service.runs.run_store import say
from service.storage.database import Database
from service.storage.tables import Run, utc_now

log = structlog.stdlib.get_logger(__name__)

# A run that kills its worker (no memory left, say) must not do so for ever.
MAX_ATTEMPTS = 3
# So many heartbeats may be late before a run counts as abandoned.
SILENT_HEARTBEATS = 6


def reap(database: Database, heartbeat_s: float) -> list[str]:
    """Put runs that fell silent back into the queue, or end those that did so too often.

    Args:
        database: Where the runs are.
        heartbeat_s: How often a living run says so.

    Returns:
        The ids of runs that may be enqueued again; they resume from their last saved state.
    """
    silent_since = utc_now() - timedelta(seconds=SILENT_HEARTBEATS * heartbeat_s)
    with database.write() as session:
        silent = session.scalars(select(Run).where(Run.status == "running", Run.heartbeat_at < silent_since)).all()
        for run in silent:
            if run.attempts < MAX_ATTEMPTS:
                run.status = "queued"
                say(session, run.id, "interrupted", reason="its worker fell silent")
            else:
                run.status, run.finished_at = "failed", utc_now()
                run.error = (
                    f"Its worker died {run.attempts} times. See runs/{run.id}/log.txt and the system's log (out of "
                    "memory? then lower the recipe's batch or crop), and start a new run."
                )
                say(session, run.id, "finished", status="failed", error=run.error)
            log.warning("run abandoned by its worker", run_id=run.id, attempts=run.attempts, now=run.status)
        return [run.id for run in silent if run.status == "queued"]
