"""Celery tasks. Each takes an id and makes one call; the database row makes duplicates harmless."""

from __future__ import annotations

import threading

from celery import Celery

from service.queue import RUN_TASK
from service.runs.perform import perform
from service.state import State


def register(app: Celery, state: State, stopping: threading.Event) -> None:
    """Register the tasks.

    Args:
        app: The application of `create_worker_app`.
        state: The state of the worker.
        stopping: Set when the worker shuts down.
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
