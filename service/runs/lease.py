"""Lease of a run: only its holder may write to the run, and every write is fenced.

`claim` increments `attempts` by compare-and-set, and later writes require that value: a worker that was presumed dead
can change nothing. A clean release decrements it; lost leases stay counted, so that no value is used twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import structlog
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.errors import names_only
from service.runs.run_store import add_event, existing_run
from service.storage.database import Database
from service.storage.tables import Run, RunStatus, utc_now

log = structlog.stdlib.get_logger(__name__)

POLL_S = 0.5
PROGRESS_EVERY_S = 0.5

Interruption = Literal["cancelled", "lost"]


class LeaseLost(Exception):  # noqa: N818 - no error of this worker: another one has the run
    """Another worker has taken over the run."""


def claim(database: Database, run_id: str) -> Lease | None:
    """Claim a queued run; return None if it has ended, or another worker has it."""
    with database.write() as session:
        row = session.execute(
            update(Run)
            .where(Run.id == run_id, Run.status == "queued")
            .values(status="running", attempts=Run.attempts + 1, heartbeat_at=utc_now())
            .returning(Run.attempts)
        ).one_or_none()
        if row is None:
            return None
        run = existing_run(session, run_id)
        run.started_at = run.started_at or utc_now()
        add_event(session, run_id, "started", attempt=row.attempts)
    return Lease(database, run_id, row.attempts)


class Lease:
    """Lease of a running run. Methods that write raise LeaseLost."""

    def __init__(self, database: Database, run_id: str, attempt: int) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self.interruption: Interruption | None = None
        """Set by the heartbeat thread."""
        self.finished = False
        self._database = database
        self._ended = threading.Event()
        self._progress_at = -PROGRESS_EVERY_S

    @contextmanager
    def with_heartbeat(self, heartbeat_s: float) -> Iterator[None]:
        """Send heartbeats from a thread during the block."""
        name = f"heartbeat {self.run_id}"
        thread = threading.Thread(target=self._send_heartbeats, args=(heartbeat_s,), name=name, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def phase(self, name: str) -> None:
        """Record the start of a phase."""
        self.record({"phase": name, "step": None, "steps": None, "loss": None}, "phase", phase=name)

    def progress(self, event: dict[str, Any]) -> None:
        """Record a `progress` event, unless one was recorded just before."""
        step, steps, loss = event.get("step"), event.get("steps"), event.get("loss")
        if step != steps and time.monotonic() - self._progress_at < PROGRESS_EVERY_S:
            return
        self._progress_at = time.monotonic()
        self.record({"step": step, "steps": steps, "loss": loss}, **event)

    def finish(self, status: RunStatus, error: str | None = None) -> None:
        """Record the end of the run."""
        values = {"status": status, "error": error, "finished_at": utc_now()}
        self.record(values, "finished", status=status, error=error)
        self.finished = True
        log.info("run finished", run_id=self.run_id, status=status, error=error)

    def release(self) -> None:
        """Return the run to the queue, without counting the attempt."""
        self.record({"status": "queued", "attempts": Run.attempts - 1}, "interrupted", reason="the worker is stopping")
        log.info("run returned to the queue", run_id=self.run_id)

    def record(self, values: dict[str, Any], event: str, **fields: Any) -> None:
        """Write columns of the run and an event, in one transaction."""
        with self.fenced() as session:
            if values:
                session.execute(update(Run).where(Run.id == self.run_id).values(**_public(values)))
            add_event(session, self.run_id, event, **_public(fields))

    @contextmanager
    def fenced(self) -> Iterator[Session]:
        """Open a write transaction in which this worker holds the run."""
        with self._database.write() as session:
            held = session.execute(
                update(Run)
                .where(Run.id == self.run_id, Run.status == "running", Run.attempts == self.attempt)
                .values(heartbeat_at=utc_now())
                .returning(Run.id)
            ).one_or_none()
            if held is None:
                raise LeaseLost(self.run_id)
            yield session

    def _send_heartbeats(self, heartbeat_s: float) -> None:
        beaten_at = time.monotonic()
        while not self._ended.wait(min(POLL_S, heartbeat_s)):
            due = time.monotonic() - beaten_at >= heartbeat_s
            try:
                self._check(beat=due)
            except Exception:
                # If the database stays unreachable, the lease expires.
                log.exception("heartbeat failed", run_id=self.run_id)
                continue
            beaten_at = time.monotonic() if due else beaten_at

    def _check(self, *, beat: bool) -> None:
        with self._database.write() if beat else self._database.read() as session:
            run = existing_run(session, self.run_id)
            if run.status != "running" or run.attempts != self.attempt:
                self.interruption = "lost"
            elif run.cancel_requested:
                self.interruption = "cancelled"
            if beat and self.interruption != "lost":
                run.heartbeat_at = utc_now()


def _public(fields: dict[str, Any]) -> dict[str, Any]:
    """Reduce paths to file names, since clients read the rows."""
    return {name: names_only(value) if isinstance(value, str) else value for name, value in fields.items()}
