"""What a worker does beside its runs, every few seconds: say that it lives, and look after what fell through.

Abandoned runs go back into the queue, runs that are queued in the database are enqueued again (a message may have been
lost, or its worker stopped), and the policy looks whether a run is due. All of it is harmless when done twice.
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

# The sweep is a few queries: every second heartbeat is plenty.
HEARTBEATS_A_SWEEP = 2


class Sweeper:
    """A thread of the worker; as a context it goes its rounds from beginning to end."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._go, name="rounds", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _go(self) -> None:
        settings = self._state.settings
        able = can_train(settings.python)
        log.info("worker is up", can_train=able, python=settings.python)
        presence = WorkerHeartbeat(self._state.database, can_train=able)
        swept_at = -float("inf")
        while not self._ending.is_set():
            try:
                presence.say()
                if time.monotonic() - swept_at >= HEARTBEATS_A_SWEEP * settings.heartbeat_s:
                    sweep(self._state)
                    swept_at = time.monotonic()
            except Exception:
                # The database was away, say. The next round comes soon.
                log.exception("a round failed")
            self._ending.wait(settings.heartbeat_s)
        presence.leave()


def sweep(state: State) -> None:
    """Look after what fell through, once."""
    reap(state.database, state.settings.heartbeat_s)
    for run_id in state.runs.queued():
        try:
            state.queue.enqueue(RUN_TASK, run_id)
        except QueueUnreachable as error:
            log.warning("the broker is away", because=str(error))
            return
    state.retrain_policy.consider()
