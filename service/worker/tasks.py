"""The tasks: an id in, one call. They may come twice, since the row decides."""

from __future__ import annotations

import threading

from celery import Celery

from service.queue import RUN_TASK
from service.runs.perform import perform
from service.state import State


def register(app: Celery, state: State, stopping: threading.Event) -> None:
    """Give the application its tasks.

    Args:
        app: As `create_worker_app` made it.
        state: The worker's stores.
        stopping: Set when the worker has to end.
    """

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
