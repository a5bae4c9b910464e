"""Lease of a run: only its holder may write to the run, and every write is fenced.

`claim` increments `fence` by compare-and-set, and later writes require that value: a worker that was presumed dead can
change nothing. `fence` only grows; `attempts` restarts when the run progresses, and does not count a clean release.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import structlog
from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.errors import names_only
from service.process_identity import process_identity
from service.runs.leases.attempts import end_attempt
from service.runs.leases.event_budget import EventBudget
from service.runs.run_store import add_event, existing_run
from service.storage.database import Database
from service.storage.storage_faults import reason_of
from service.storage.tables import Run, RunStatus, utc_now

log = structlog.stdlib.get_logger(__name__)

POLL_S = 0.5
PROGRESS_EVERY_S = 0.5
# Number of `progress` events after which the interval between them grows.
PROGRESS_EVENTS = 500

Interruption = Literal["cancelled", "lost"]


class LeaseLost(Exception):  # noqa: N818 - no error of this worker: another one has the run
    """Another worker has taken over the run."""


def claim(database: Database, run_id: str) -> Lease | None:
    """Claim a queued run; return None if it has ended, or another worker has it."""
    values = {
        "status": "running",
        "attempts": Run.attempts + 1,
        "fence": Run.fence + 1,
        "beats": Run.beats + 1,
        "holder": process_identity(os.getpid()),
    }
    claimed = update(Run).where(Run.id == run_id, Run.status == "queued").values(values).returning(Run.id)
    with database.write() as session:
        if session.execute(claimed).one_or_none() is None:
            return None
        run = existing_run(session, run_id)
        run.started_at = run.started_at or utc_now()
        add_event(session, run_id, "started", attempt=run.attempts)
    return Lease(database, run)


class Lease:
    """Lease of a running run. Methods that write raise LeaseLost."""

    def __init__(self, database: Database, run: Run) -> None:
        self.run_id = run.id
        self.fence = run.fence
        """Number of this claim; no other claim of the run has it."""
        self.earlier_program = run.program
        """Identity of the program that an earlier worker started; it may still run."""
        self.interruption: Interruption | None = None
        """Set by the heartbeat thread."""
        self.finished = False
        """Whether this worker has recorded the end of the run."""
        self._database = database
        self._saved_step = run.saved_step
        self._ended = threading.Event()
        self._progress_at = -PROGRESS_EVERY_S
        self._event_at = -float("inf")
        self._claimed_at = time.monotonic()
        self._budget = EventBudget(self.run_id)

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
        now = self._progress_at = time.monotonic()
        values = {"step": step, "steps": steps, "loss": loss}
        # The longer the attempt, the rarer its events: their number grows with the logarithm of its duration.
        interval_s = (now - self._claimed_at) / PROGRESS_EVENTS
        if step == steps or now - self._event_at >= interval_s:
            self._event_at = now
            self.record(values, **event)
        else:
            with self.fenced(values):
                pass

    def saved(self, event: dict[str, Any]) -> None:
        """Record an event that proves a saved state at its `step`. If that is further than ever, attempts restart at 1.

        The `start` of a resumed trainer proves it too: a power cut may have lost the event of the save.
        """
        step = int(event.get("step") or 0)
        further = step > self._saved_step
        self._saved_step = max(step, self._saved_step)
        values: dict[str, Any] = {"saved_step": step, "attempts": 1} if further else {}
        if isinstance(event.get("environment"), dict):
            values["environment"] = event["environment"]
        self.record(values, **event)

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

    def end_attempt(self, reason: str) -> None:
        """Return the run to the queue after an attempt that failed by chance; fail it if too many did."""
        with self.fenced() as session:
            run = existing_run(session, self.run_id)
            end_attempt(session, run, names_only(reason))
        self.finished = run.status == "failed"
        log.warning("attempt ended", run_id=self.run_id, now=run.status, reason=reason)

    def record(self, values: dict[str, Any], event: str, **fields: Any) -> None:
        """Write columns of the run and an event, in one transaction."""
        with self.fenced(values) as session:
            fitted = self._budget.fit(session, event, _public(fields))
            if fitted is not None:
                add_event(session, self.run_id, event, **fitted)

    @contextmanager
    def fenced(self, values: dict[str, Any] | None = None) -> Iterator[Session]:
        """Open a fenced write transaction that sets columns of the run; what else it writes is fenced too."""
        written = {"beats": Run.beats + 1, **_public(values or {})}
        with self._database.write() as session:
            held = session.execute(update(Run).where(self._held()).values(written).returning(Run.id))
            if held.one_or_none() is None:
                raise LeaseLost(self.run_id)
            yield session

    def _held(self) -> ColumnElement[bool]:
        return and_(Run.id == self.run_id, Run.status == "running", Run.fence == self.fence)

    def _send_heartbeats(self, heartbeat_s: float) -> None:
        beaten_at, failed = time.monotonic(), False
        while not self._ended.wait(min(POLL_S, heartbeat_s)):
            due = time.monotonic() - beaten_at >= heartbeat_s
            try:
                self._check(beat=due)
            except DBAPIError as error:
                # If the database stays unreachable, the lease expires.
                if not failed:
                    log.warning("heartbeat failed; it is tried again", run_id=self.run_id, cause=reason_of(error))
                failed = True
                continue
            except Exception:
                log.exception("heartbeat failed", run_id=self.run_id)
                continue
            failed = False
            beaten_at = time.monotonic() if due else beaten_at

    def _check(self, *, beat: bool) -> None:
        try:
            with self.fenced() if beat else self._database.read() as session:
                held = session.execute(select(Run.cancel_requested).where(self._held())).one_or_none()
        except LeaseLost:
            held = None
        if held is None:
            self.interruption = "lost"
        elif held.cancel_requested:
            self.interruption = "cancelled"


def _public(fields: dict[str, Any]) -> dict[str, Any]:
    """Reduce paths to file names, since clients read the rows."""
    return {name: names_only(value) if isinstance(value, str) else value for name, value in fields.items()}
