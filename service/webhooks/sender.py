"""Send the messages of the outbox to the configured URL, and nowhere else; retry with growing pauses.

The worker's sweep calls this. A message is claimed before it is sent: two workers do not send it at the same time, and
one whose worker died is sent again. Receivers recognise a repetition by `webhook-id`.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Timer
from urllib.parse import urlsplit

import structlog
from sqlalchemy import delete, or_, select, update

from service.settings import Settings
from service.storage.database import Database
from service.storage.tables import WebhookMessage, utc_now
from service.webhooks.signature import signed_headers

log = structlog.stdlib.get_logger(__name__)

PAUSES_S = (5, 30, 120, 600, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 24 * 3600)
"""Pause after each failed attempt; after the last one the message is dropped, three days after the event."""
UNSENDABLE_AFTER = timedelta(hours=1)
"""Age at which a worker without a webhook drops a message: another worker may have one and be about to send it."""
LONGEST = timedelta(seconds=max(PAUSES_S))
TIMEOUT_S = 5.0
"""Longest attempt, whether the receiver is silent or slow: one sweep also sends the worker's heartbeat."""
BUDGET_S = 10.0
"""No message is started later than this in one sweep."""
BATCH = 50
GONE = 410


def send_due(database: Database, settings: Settings) -> int:
    """Send the messages that are due; return how many were accepted. Without a configured webhook, drop old ones."""
    if not settings.webhook_url:
        with database.write() as session:
            session.execute(delete(WebhookMessage).where(WebhookMessage.created_at < utc_now() - UNSENDABLE_AFTER))
        return 0
    begin, sent = time.monotonic(), 0
    for message in _due(database):
        if time.monotonic() - begin > BUDGET_S:
            break
        if _claim(database, message):
            sent += _send(database, settings, message)
    return sent


def _due(database: Database) -> Sequence[WebhookMessage]:
    now = utc_now()
    # A clock that was set back must not delay a message for longer than the longest pause.
    is_due = or_(WebhookMessage.due_at <= now, WebhookMessage.due_at > now + LONGEST)
    with database.read() as session:
        query = select(WebhookMessage).where(is_due).order_by(WebhookMessage.created_at).limit(BATCH)
        return session.scalars(query).all()


def _claim(database: Database, message: WebhookMessage) -> bool:
    pause = timedelta(seconds=PAUSES_S[min(message.attempts, len(PAUSES_S) - 1)])
    claimed = (
        update(WebhookMessage)
        .where(WebhookMessage.id == message.id, WebhookMessage.attempts == message.attempts)
        .values(attempts=message.attempts + 1, due_at=utc_now() + pause)
        .returning(WebhookMessage.id)
    )
    with database.write() as session:
        return session.execute(claimed).one_or_none() is not None


def _send(database: Database, settings: Settings, message: WebhookMessage) -> bool:
    status = _post(settings, message)
    accepted = isinstance(status, int) and 200 <= status < 300
    is_last = status == GONE or message.attempts + 1 >= len(PAUSES_S)
    if not accepted:
        note = log.error if is_last else log.warning
        host = urlsplit(settings.webhook_url).hostname
        note("webhook not accepted", id=message.id, host=host, reason=status, attempt=message.attempts + 1)
    if accepted or is_last:
        with database.write() as session:
            session.execute(delete(WebhookMessage).where(WebhookMessage.id == message.id))
    return accepted


def _post(settings: Settings, message: WebhookMessage) -> int | str:
    """Return the status of the answer, or why there is none. Follows no redirect and uses no proxy."""
    url, body = urlsplit(settings.webhook_url), json.dumps(message.payload).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "maskloop"}
    headers |= signed_headers(message.id, int(time.time()), body, settings.webhook_secret.get_secret_value())
    target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    try:
        connection = kind(url.hostname or "", url.port, timeout=TIMEOUT_S)
    except (HTTPException, ValueError) as error:
        return str(error)
    # The timeout of the connection is for each read: a receiver that sends a byte at a time would never exceed it.
    watchdog = Timer(TIMEOUT_S, _abort, [connection])
    watchdog.start()
    try:
        connection.request("POST", target, body, headers)
        return connection.getresponse().status
    except (OSError, HTTPException, ValueError) as error:
        return str(error) or type(error).__name__
    finally:
        watchdog.cancel()
        connection.close()


def _abort(connection: HTTPConnection) -> None:
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
