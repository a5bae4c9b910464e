"""Periodic work of a worker, every few seconds: heartbeat, recovery of abandoned runs, and the retraining policy.

All of this is idempotent.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import structlog

from service.errors import QueueUnreachable
from service.queue import RUN_TASK
from service.runs.reaper import reap
from service.state import State
from service.worker.heartbeat import WorkerHeartbeat, can_train

log = structlog.stdlib.get_logger(__name__)

# The sweep costs a few queries: every second heartbeat is enough.
HEARTBEATS_PER_SWEEP = 2


class Sweeper:
    """Background thread of the worker, running for the duration of the context."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        settings = self._state.settings
        trainable = can_train(settings.python)
        log.info("worker is up", can_train=trainable, python=settings.python)
        heartbeat = WorkerHeartbeat(self._state.database, can_train=trainable)
        swept_at = -float("inf")
        while not self._ending.is_set():
            try:
                heartbeat.beat()
                if time.monotonic() - swept_at >= HEARTBEATS_PER_SWEEP * settings.heartbeat_s:
                    sweep(self._state)
                    swept_at = time.monotonic()
            except Exception:
                log.exception("sweep failed")
            self._ending.wait(settings.heartbeat_s)
        heartbeat.remove()


def sweep(state: State) -> None:
    """Queue abandoned runs again, send queued runs again (their message may be lost), and start a run if one is due."""
    reap(state.database, state.settings.heartbeat_s)
    for run_id in state.runs.queued():
        try:
            state.queue.enqueue(RUN_TASK, run_id)
        except QueueUnreachable as error:
            log.warning("the broker does not answer", reason=str(error))
            return
    state.retrain_policy.consider()
