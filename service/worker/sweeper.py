"""Periodic, idempotent work of a worker: heartbeat, recovery of abandoned runs, and the retraining policy."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog
from sqlalchemy import delete, select
from sqlalchemy.exc import DBAPIError

from service.errors import QueueUnreachable
from service.process_identity import process_identity
from service.queue import RUN_TASK
from service.runs.leases.liveness import Liveness
from service.runs.leases.reaper import reap
from service.runs.policy.drift_trigger import start_for_drift
from service.runs.worker.deletion_sweep import sweep_deletions
from service.runs.worker.orphan_sweep import OrphanSweep
from service.state import State
from service.storage.database import Database
from service.storage.storage_faults import reason_of, storage_fault
from service.storage.tables import Worker, utc_now
from service.webhooks.sender import send_due

log = structlog.stdlib.get_logger(__name__)

HEARTBEATS_PER_SWEEP = 2
REQUIRED_PACKAGES = ("trainer", "exporter", "torch", "timm", "safetensors", "onnx", "onnxscript")
# Does not import the packages: torch takes seconds.
PROBE = "import importlib.util as u, sys; sys.exit(not all(u.find_spec(n) for n in sys.argv[1:]))"
PROBE_TIMEOUT_S = 60
# Rows of workers that are silent for so many times the limit are deleted.
EXPIRY_LIMITS = 10


@contextmanager
def sweeping(state: State) -> Iterator[None]:
    """Do the periodic work in a background thread during the block."""
    ending = threading.Event()
    thread = threading.Thread(target=_run, args=(state, ending), name="sweeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _run(state: State, ending: threading.Event) -> None:
    settings = state.settings
    trainable = can_train(settings.python)
    log.info("worker is up", can_train=trainable, python=settings.python)
    heartbeat = WorkerHeartbeat(state.database, can_train=trainable)
    orphans = OrphanSweep(settings, state.images)
    swept_at, last_fault = -float("inf"), ""
    while not ending.is_set():
        try:
            heartbeat.beat()
            if time.monotonic() - swept_at >= HEARTBEATS_PER_SWEEP * settings.heartbeat_s:
                sweep(state)
                orphans.step()
                swept_at = time.monotonic()
            last_fault = ""
        except Exception as error:
            fault = str(storage_fault(error, settings.data_dir) or "")
            if not fault:
                log.exception("sweep failed")
            elif fault != last_fault:
                log.warning("sweep failed; it is tried again", reason=fault, cause=reason_of(error))
            last_fault = fault
        ending.wait(settings.heartbeat_s)
    with suppress(DBAPIError):
        heartbeat.remove()


def sweep(state: State) -> None:
    """Queue abandoned runs, complete deletions, send webhooks and queued runs, and start a run if one is due.

    The message of a queued run may be lost.
    """
    delete_dead_workers(state.database, state.liveness)
    reap(state.database, state.liveness)
    sweep_deletions(state.database, state.images, state.settings.data_dir / "runs")
    send_due(state.database, state.settings)
    for run_id in state.runs.queued():
        try:
            state.queue.enqueue(RUN_TASK, run_id)
        except QueueUnreachable as error:
            log.warning("the broker does not answer", reason=str(error))
            return
    state.retrain_policy.consider()
    state.retrain_policy.consider_schedule()
    start_for_drift(state.retrain_policy)


def can_train(python: str) -> bool:
    """Whether an interpreter has the trainer, the exporter and their dependencies."""
    try:
        found = subprocess.run(
            [python, "-c", PROBE, *REQUIRED_PACKAGES], check=False, timeout=PROBE_TIMEOUT_S, capture_output=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("cannot run the trainer's interpreter", python=python, reason=str(error))
        return False
    return found.returncode == 0


def delete_dead_workers(database: Database, liveness: Liveness) -> None:
    """Delete the rows of workers that were killed; one that was only suspended writes its row again."""
    with database.read() as session:
        workers = session.scalars(select(Worker)).all()
    dead = [worker for worker in workers if liveness.silence_s(worker) > EXPIRY_LIMITS * liveness.limit_s]
    if dead:
        with database.write() as session:
            for worker in dead:
                session.execute(delete(Worker).where(Worker.id == worker.id, Worker.beats == worker.beats))


class WorkerHeartbeat:
    """The worker row of this process."""

    def __init__(self, database: Database, *, can_train: bool) -> None:
        self._database = database
        self._can_train = can_train
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._id = f"{self._host}:{self._pid}"
        self._process = process_identity(self._pid)
        self._beats = 0

    def beat(self) -> None:
        """Record that this worker is alive."""
        self._beats += 1
        row = Worker(
            id=self._id,
            seen_at=utc_now(),
            can_train=self._can_train,
            pid=self._pid,
            host=self._host,
            beats=self._beats,
            process=self._process,
        )
        with self._database.write() as session:
            session.merge(row)

    def remove(self) -> None:
        """Delete the row, on a clean shutdown."""
        with self._database.write() as session:
            session.execute(delete(Worker).where(Worker.id == self._id))
