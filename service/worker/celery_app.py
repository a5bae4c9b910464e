"""The Celery application of a worker. Every option that is not Celery's default has its reason beside it.

The pool is `threads` with one thread: the work itself is a subprocess, so the thread only waits and writes rows. A
prefork pool would add processes that can be orphaned, and `solo` would leave the broker unanswered during a run.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from service.queue import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, KEY_PREFIX, QUEUE
from service.settings import Settings

# Longer than any run, should a message ever wait behind one; see `visibility_timeout`.
SLACK_S = 3600.0


def create_worker_app(settings: Settings) -> Celery:
    """The application, without tasks; see `tasks.register`."""
    app = Celery("maskloop", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        # Ids are all that travels, and nothing from the broker is ever unpickled.
        task_serializer="json",
        accept_content=["json"],
        # The row in the database is the only truth about a run.
        result_backend=None,
        task_ignore_result=True,
        task_default_queue=QUEUE,
        # Acknowledged when it starts (the default, said aloud): what becomes of a run whose worker dies is for the
        # reaper to decide, not for a redelivery that knows nothing of attempts.
        task_acks_late=False,
        # See above.
        worker_pool="threads",
        worker_concurrency=1,
        # A run takes minutes or days: no worker keeps messages that another one could have.
        worker_prefetch_multiplier=1,
        # Remote control, gossip and events would be more connections for nothing that we use: cancelling goes through
        # the database.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        # Logging is `logs.py`'s.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # A broker that is away comes back: wait for it at the start and for as long as it takes.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        # With early acknowledgement nothing is lost by letting a run go on while the connection is restored.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_transport_options=_transport(settings),
    )
    return app


def _transport(settings: Settings) -> dict[str, Any]:
    return {
        "global_keyprefix": KEY_PREFIX,
        # Redelivers what was taken and not acknowledged. A second copy of an id would do no harm, only noise.
        "visibility_timeout": settings.run_timeout_s + SLACK_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": ANSWER_TIMEOUT_S,
        # A half-open connection is noticed instead of being listened to for ever.
        "socket_keepalive": True,
        "health_check_interval": 15,
    }
