"""Messages for the webhook, written in the transaction of the change that they report: neither is lost."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from sqlalchemy.orm import Session

from service.storage.tables import WebhookMessage, utc_now


def add_message(session: Session, kind: str, data: dict[str, Any]) -> None:
    """Add a message of a type such as `run.judged`. The worker sends it; without a webhook, it is dropped later."""
    now = utc_now()
    payload = {"type": kind, "timestamp": now.isoformat(), "data": data}
    session.add(WebhookMessage(id=f"msg_{uuid4().hex}", payload=payload, created_at=now, due_at=now))
