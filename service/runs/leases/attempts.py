"""Attempts of a run: how one that ended unexpectedly is repeated, and when the run is given up."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.runs.run_store import add_event
from service.storage.tables import Run, utc_now

# Without progress between them. A run that kills its worker or its machine must not do so forever.
MAX_ATTEMPTS = 3


def end_attempt(session: Session, run: Run, reason: str) -> None:
    """Queue a run again after an attempt that ended unexpectedly; fail it after `MAX_ATTEMPTS` without progress.

    `reason` says what happened, and the remedy.
    """
    if run.attempts < MAX_ATTEMPTS:
        run.status = "queued"
        add_event(session, run.id, "interrupted", reason=reason, attempt=run.attempts)
        return
    run.status, run.finished_at = "failed", utc_now()
    run.error = f"{MAX_ATTEMPTS} attempts ended without progress; the last one: {reason}"
    add_event(session, run.id, "finished", status="failed", error=run.error)
