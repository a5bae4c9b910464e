"""Who performs a run holds its lease, and every write it makes is fenced by it.

A claim counts `attempts` up by compare-and-set; later writes name the count they were given. A worker that was thought
dead and wakes up again finds another count (or another status) in the row, and can change nothing any more. A lease
that is given back in good order takes its attempt back with it; lost ones stay counted, so no count is met twice.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Literal, Self

import structlog
from sqlalchemy import update

from service.errors import names_only
from service.runs.run_store import known_run, say
from service.storage.database import Database
from service.storage.tables import Run, RunStatus, utc_now

log = structlog.stdlib.get_logger(__name__)

# A cancellation is noticed within this time.
LOOK_EVERY_S = 0.5
# Progress is written at most so often, however fast the steps are.
PROGRESS_EVERY_S = 0.5

Interruption = Literal["cancelled", "lost"]


class LeaseLost(Exception):  # noqa: N818 - nothing went wrong here: the run belongs to somebody else now
    """The run is not ours any more."""


def claim(database: Database, run_id: str) -> Lease | None:
    """Take a queued run; None where it is not queued: done already, cancelled, or somebody else's."""
    with database.write() as session:
        row = session.execute(
            update(Run)
            .where(Run.id == run_id, Run.status == "queued")
            .values(status="running", attempts=Run.attempts + 1, heartbeat_at=utc_now())
            .returning(Run.attempts)
        ).one_or_none()
        if row is None:
            return None
        run = known_run(session, run_id)
        run.started_at = run.started_at or utc_now()
        say(session, run_id, "started", attempt=row.attempts)
    return Lease(database, run_id, row.attempts)


class Lease:
    """The right to write into the row of one running run. As a context it keeps the heartbeat going in a thread."""

    def __init__(self, database: Database, run_id: str, attempt: int) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self.interruption: Interruption | None = None
        """Set by the heartbeat when the run was cancelled, or taken from us."""
        self._database = database
        self._ended = threading.Event()
        self._heartbeat_s = 0.0
        self._thread: threading.Thread | None = None
        self._progress_at = -PROGRESS_EVERY_S

    def keep(self, heartbeat_s: float) -> Self:
        """For `with lease.keep(seconds):` - say every so often that the run is alive."""
        self._heartbeat_s = heartbeat_s
        return self

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._beat_on, name=f"heartbeat {self.run_id}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def phase(self, name: str) -> None:
        """The run enters a phase.

        Raises:
            LeaseLost: As every method here.
        """
        self._write({"phase": name, "step": None, "steps": None, "loss": None}, "phase", phase=name)

    def progress(self, event: dict[str, Any]) -> None:
        """One `progress` event of a program: into the row and the history, unless one was written just before."""
        step, steps, loss = event.get("step"), event.get("steps"), event.get("loss")
        if step != steps and time.monotonic() - self._progress_at < PROGRESS_EVERY_S:
            return
        self._progress_at = time.monotonic()
        self._write({"step": step, "steps": steps, "loss": loss}, **event)

    def record(self, values: dict[str, Any], event: str, **fields: Any) -> None:
        """Write columns of the run and an event about them, in one transaction."""
        self._write(values, event, **fields)

    def finish(self, status: RunStatus, error: str | None = None) -> None:
        """The run is over."""
        values = {"status": status, "error": error, "finished_at": utc_now()}
        self._write(values, "finished", status=status, error=error)
        log.info("run finished", run_id=self.run_id, status=status, error=error)

    def release(self) -> None:
        """Give the run back in good order: another worker goes on with it, and the attempt does not count."""
        self._write({"status": "queued", "attempts": Run.attempts - 1}, "interrupted", reason="the worker is stopping")
        log.info("run given back", run_id=self.run_id)

    def _write(self, values: dict[str, Any], event: str, **fields: Any) -> None:
        with self._database.write() as session:
            mine = session.execute(
                update(Run)
                .where(Run.id == self.run_id, Run.status == "running", Run.attempts == self.attempt)
                .values(heartbeat_at=utc_now(), **_public(values))
                .returning(Run.id)
            ).one_or_none()
            if mine is None:
                raise LeaseLost(self.run_id)
            say(session, self.run_id, event, **_public(fields))

    def _beat_on(self) -> None:
        beaten_at = time.monotonic()
        while not self._ended.wait(min(LOOK_EVERY_S, self._heartbeat_s)):
            due = time.monotonic() - beaten_at >= self._heartbeat_s
            try:
                self._look(beat=due)
            except Exception:
                # The database may be away for a moment. If it stays away, the lease runs out, as it should.
                log.exception("heartbeat failed", run_id=self.run_id)
                continue
            beaten_at = time.monotonic() if due else beaten_at

    def _look(self, *, beat: bool) -> None:
        with self._database.write() if beat else self._database.read() as session:
            run = known_run(session, self.run_id)
            if run.status != "running" or run.attempts != self.attempt:
                self.interruption = "lost"
            elif run.cancel_requested:
                self.interruption = "cancelled"
            if beat and self.interruption != "lost":
                run.heartbeat_at = utc_now()


def _public(fields: dict[str, Any]) -> dict[str, Any]:
    """Anybody may read the rows: what the programs say of their files is cut to names. `log.txt` has all of it."""
    return {name: names_only(value) if isinstance(value, str) else value for name, value in fields.items()}
