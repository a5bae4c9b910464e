"""The one door to the broker that both sides use: a task's name and an id go through it, and nothing else ever does."""

from __future__ import annotations

from typing import Any

import structlog

from service.errors import QueueUnreachable

log = structlog.stdlib.get_logger(__name__)

QUEUE = "maskloop"
RUN_TASK = "maskloop.run"

# Other programs may use the same broker; with names of our own, their visibility timeout does not touch our messages.
KEY_PREFIX = "maskloop:"

# A broker that is away is noticed within this time; the row in the database waits for it.
CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0


class Queue:
    """Puts ids into the broker. Celery is imported by the first one, so that the API starts without it."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._app: Any = None

    def enqueue(self, task: str, run_id: str) -> None:
        """Ask some worker to run `task` for `run_id`. The row must be committed before.

        Raises:
            QueueUnreachable: There is no broker, or it does not answer.
        """
        if not self._broker_url:
            raise QueueUnreachable(
                "No broker is configured: start everything with `python -m service up`, or set MASKLOOP_BROKER_URL."
            )
        try:
            self._producer().send_task(task, args=[run_id], queue=QUEUE, ignore_result=True, retry=False)
        except Exception as error:
            # Every transport has connection errors of its own; whatever it was, the id is not in the queue.
            raise QueueUnreachable(f"The broker does not answer ({error}): is it running?", retry_after_s=5) from error
        log.info("enqueued", task=task, run_id=run_id)

    def close(self) -> None:
        """Close the connections to the broker."""
        if self._app is not None:
            self._app.close()

    def _producer(self) -> Any:
        if self._app is None:
            from celery import Celery  # noqa: PLC0415 - see the class

            app = Celery("maskloop-producer", broker=self._broker_url, set_as_current=False)
            app.conf.task_serializer = "json"
            app.conf.broker_connection_timeout = CONNECT_TIMEOUT_S
            app.conf.broker_transport_options = {
                "global_keyprefix": KEY_PREFIX,
                "socket_connect_timeout": CONNECT_TIMEOUT_S,
                "socket_timeout": ANSWER_TIMEOUT_S,
            }
            self._app = app
        return self._app
