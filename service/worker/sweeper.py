"""Periodic, idempotent work of a worker: recovery of abandoned runs, deletions, webhooks, and the retraining policy."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from functools import partial

import structlog
from sqlalchemy import delete, select

from service.classes.label_counts import count_uncounted
from service.errors import QueueUnreachable
from service.queue import RUN_TASK
from service.runs.leases.liveness import Liveness
from service.runs.leases.reaper import reap
from service.runs.policy.drift_trigger import start_for_drift
from service.runs.worker.deletion_sweep import sweep_deletions
from service.runs.worker.orphan_sweep import OrphanSweep
from service.state import State
from service.storage.database import Database
from service.storage.tables import Worker
from service.webhooks.sender import send_due
from service.worker.background_thread import background_thread
from service.worker.fault_log import FaultLog
from service.worker.worker_heartbeat import WorkerHeartbeat

log = structlog.stdlib.get_logger(__name__)

HEARTBEATS_PER_SWEEP = 2
LABELS_PER_SWEEP = 200
REQUIRED_PACKAGES = ("trainer", "exporter", "torch", "timm", "safetensors", "onnx", "onnxscript")
# Does not import the packages: torch takes seconds.
PROBE = "import importlib.util as u, sys; sys.exit(not all(u.find_spec(n) for n in sys.argv[1:]))"
PROBE_TIMEOUT_S = 60
# Rows of workers that are silent for so many times the limit are deleted.
EXPIRY_LIMITS = 10


def sweep_periodically(state: State, ending: threading.Event) -> None:
    """Send heartbeats and do the periodic work until `ending` is set."""
    settings = state.settings
    trainable = can_train(settings.python)
    log.info("worker is up", can_train=trainable, python=settings.python)
    heartbeat = WorkerHeartbeat(state.database, can_train=trainable)
    orphans, faults = OrphanSweep(settings, state.images), FaultLog("sweep", settings.data_dir)
    # In a thread of its own: a step may wait for a store that does not answer, and the worker is not dead.
    with background_thread("heartbeat", partial(heartbeat.send, settings)):
        heartbeat.sent.wait(settings.heartbeat_s)
        while not ending.is_set():
            try:
                sweep(state)
                orphans.step()
                faults.report()
            except* Exception as group:
                faults.report(*group.exceptions)
            ending.wait(HEARTBEATS_PER_SWEEP * settings.heartbeat_s)


def sweep(state: State) -> None:
    """Do every step of the sweep, also after one that fails. Raises ExceptionGroup of their errors."""
    errors = []
    for step in STEPS:
        try:
            step(state)
        except Exception as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup("steps of the sweep failed", errors)


def _send_queued(state: State) -> None:
    """Send the ids of queued runs: the broker may have lost their messages."""
    for run_id in state.runs.queued():
        try:
            state.queue.enqueue(RUN_TASK, run_id)
        except QueueUnreachable as error:
            log.warning("the broker does not answer", reason=str(error))
            return


def _count_old_labels(state: State) -> None:
    """Count the classes of labels of a former version of the service, which all have the first class list."""
    with state.database.read() as session:
        uncounted = count_uncounted(session)
    if uncounted:
        state.images.count_labels(state.models.classes.history().version(1).ignore_index, LABELS_PER_SWEEP)


STEPS: tuple[Callable[[State], object], ...] = (
    lambda state: delete_dead_workers(state.database, state.liveness),
    lambda state: reap(state.database, state.liveness),
    lambda state: sweep_deletions(state.database, state.images, state.settings.data_dir / "runs"),
    lambda state: send_due(state.database, state.settings),
    _send_queued,
    lambda state: state.retrain_policy.consider(),
    lambda state: state.retrain_policy.consider_schedule(),
    lambda state: start_for_drift(state.retrain_policy),
    lambda state: state.retention.sweep(),
    _count_old_labels,
)


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
