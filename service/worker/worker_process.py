"""The worker process: state, sweeper, task, and Celery's loop."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from functools import partial
from types import FrameType
from typing import Any

import structlog
from celery import Celery, signals
from celery.exceptions import SecurityWarning

from service.errors import QueueUnreachable
from service.logs import configure_logs
from service.queue import RUN_TASK
from service.runs.worker.perform import perform
from service.settings import Settings, open_telemetry_variables
from service.state import State, open_state
from service.tracing import open_tracing
from service.worker.background_analysis import analyse_in_background
from service.worker.background_thread import background_thread
from service.worker.celery_app import create_worker_app
from service.worker.sweeper import sweep_periodically

log = structlog.stdlib.get_logger(__name__)


def run_worker(settings: Settings, ready_fd: int | None = None) -> int:
    """Run until SIGTERM or SIGINT and return the exit code; a run in progress is saved. Raises QueueUnreachable.

    A byte is written to the file descriptor `ready_fd` when the broker was reached.
    """
    if not settings.broker_url:
        raise QueueUnreachable("A worker needs MASKLOOP_BROKER_URL; `maskloop up` starts one with its broker.")
    # Celery handles the signal once it has started; until then, end as cleanly.
    signal.signal(signal.SIGTERM, _exit)
    configure_logs(settings)
    state = open_state(settings, open_tracing(open_telemetry_variables()))
    try:
        stopping = threading.Event()
        app = create_worker_app(settings)
        _register_task(app, state, stopping)
        with (
            background_thread("sweeper", partial(sweep_periodically, state)),
            background_thread("analysis", partial(analyse_in_background, state)),
        ):
            return _work(app, stopping, ready_fd)
    finally:
        state.close()


def _exit(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _register_task(app: Celery, state: State, stopping: threading.Event) -> None:
    @app.task(name=RUN_TASK)  # type: ignore[untyped-decorator]  # celery ships no types
    def run(run_id: str) -> None:
        perform(
            run_id,
            stopping,
            settings=state.settings,
            database=state.database,
            images=state.images,
            models=state.models,
            tracing=state.tracing,
        )


def _work(app: Celery, stopping: threading.Event, ready_fd: int | None) -> int:
    # Celery keeps weak references to receivers: this frame keeps these alive.
    def on_shutdown(**_: Any) -> None:
        stopping.set()

    def on_ready(**_: Any) -> None:
        if ready_fd is not None:
            os.write(ready_fd, b"\n")

    def on_logging(**_: Any) -> None:
        """Having a receiver prevents Celery from configuring logging."""

    signals.worker_shutting_down.connect(on_shutdown)
    signals.worker_ready.connect(on_ready)
    signals.setup_logging.connect(on_logging)
    # Celery warns about pickle as root; this worker accepts only JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = app.Worker(quiet=True, without_gossip=True, without_mingle=True, without_heartbeat=True)
    worker.start()
    return int(worker.exitcode or 0)
