"""Send tasks to the broker. A message holds only the name of a task and an id."""

from __future__ import annotations

from typing import Any

import structlog

from service.errors import QueueUnreachable

log = structlog.stdlib.get_logger(__name__)

QUEUE = "maskloop"
RUN_TASK = "maskloop.run"

# Programs with other visibility timeouts may use the same broker.
KEY_PREFIX = "maskloop:"

# For an unreachable broker; the database row keeps the run.
CONNECT_TIMEOUT_S = 2.0
RESPONSE_TIMEOUT_S = 5.0


class Queue:
    """Producer of tasks. Celery is imported at first use: the API starts without it."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._app: Any = None

    def enqueue(self, task: str, run_id: str) -> None:
        """Send a task, after the row of the run was committed. Raises QueueUnreachable."""
        if not self._broker_url:
            raise QueueUnreachable(
                "No broker is configured: start everything with `maskloop up`, or set MASKLOOP_BROKER_URL."
            )
        try:
            self._producer().send_task(task, args=[run_id], queue=QUEUE, ignore_result=True, retry=False)
        except Exception as error:
            # Every transport has its own connection errors.
            raise QueueUnreachable(
                f"The broker does not answer ({error}): check that it runs and that MASKLOOP_BROKER_URL is right.",
                retry_after_s=5,
            ) from error
        log.info("enqueued", task=task, run_id=run_id)

    def close(self) -> None:
        """Close the connections."""
        if self._app is not None:
            self._app.close()

    def _producer(self) -> Any:
        if self._app is None:
            self._app = make_celery(self._broker_url)
            self._app.conf.broker_connection_timeout = CONNECT_TIMEOUT_S
        return self._app


def make_celery(broker_url: str, **transport_options: Any) -> Any:
    """Create a Celery application for JSON messages, with this service's timeouts and key prefix."""
    from celery import Celery  # noqa: PLC0415 - see `Queue`

    app = Celery("maskloop", broker=broker_url, set_as_current=False)
    app.conf.task_serializer = "json"
    app.conf.broker_transport_options = {
        "global_keyprefix": KEY_PREFIX,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": RESPONSE_TIMEOUT_S,
        **transport_options,
    }
    return app
