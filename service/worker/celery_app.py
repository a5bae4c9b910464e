"""Celery application of the worker.

The pool is `threads` with one thread: a run is a subprocess, and the thread only waits and writes rows. `prefork` would
add processes that can be orphaned, `solo` would not answer the broker during a run.
"""

from __future__ import annotations

from celery import Celery

from service.queue import QUEUE, make_celery
from service.settings import Settings

# Added to the longest run, since a message may wait behind one.
SLACK_S = 3600.0


def create_worker_app(settings: Settings) -> Celery:
    """Create the application, without tasks."""
    app: Celery = make_celery(
        settings.broker_url,
        # Time after which unacknowledged messages are redelivered. A duplicate is harmless.
        visibility_timeout=settings.run_timeout_s + SLACK_S,
        # Detect half-open connections.
        socket_keepalive=True,
        health_check_interval=15,
    )
    app.conf.update(
        # Nothing from the broker is unpickled.
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_default_queue=QUEUE,
        # Acknowledge when a task starts (the default): the reaper decides about the run of a dead worker.
        task_acks_late=False,
        worker_pool="threads",
        worker_concurrency=1,
        # A worker must not hold messages that another could take.
        worker_prefetch_multiplier=1,
        # Not used, and each is a connection: cancellation goes through the database.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        # `service/logs.py` configures logging.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # Wait for an unreachable broker without a limit.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        # With early acknowledgement a run may continue while the connection is restored.
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    return app
