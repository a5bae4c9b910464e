"""Bound what a run writes to the table of events: at most `MAX_EVENTS` times `MAX_EVENT_BYTES`, about 40 MB."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.storage.tables import RunEvent

MAX_EVENTS = 10_000
MAX_EVENT_BYTES = 4_000
MAX_TEXT = 2_000
# These are few, and clients wait for them.
ALWAYS = frozenset({"phase", "candidate", "verdict", "finished", "interrupted"})


class EventBudget:
    """The events that a run may still write; one per attempt."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._written: int | None = None

    def fit(self, session: Session, event: str, fields: dict[str, Any]) -> dict[str, Any] | None:
        """Return the fields to write, shortened if they are too large, or None if the run has written too many."""
        if self._written is None:
            counted = select(func.count()).select_from(RunEvent).where(RunEvent.run_id == self._run_id)
            self._written = session.scalars(counted).one()
        if self._written >= MAX_EVENTS and event not in ALWAYS:
            return None
        self._written += 1
        return fields if _size(fields) <= MAX_EVENT_BYTES else _shortened(fields)


def _size(fields: dict[str, Any]) -> int:
    return len(json.dumps(fields))


def _shortened(fields: dict[str, Any]) -> dict[str, Any]:
    """Keep numbers and the beginnings of texts."""
    kept: dict[str, Any] = {"shortened": True}
    for name, value in fields.items():
        short = value[:MAX_TEXT] if isinstance(value, str) else value
        simple = isinstance(short, str | int | float | None)
        if simple and _size(kept | {name: short}) <= MAX_EVENT_BYTES:
            kept[name] = short
    return kept
