"""Triggers of retraining: new images and new labels since the last run that learned, and pauses after a run.

Counts stop at a limit and use an index, so they take the same time at any size of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.settings import Settings
from service.storage.tables import ACTIVE, Image, Run, utc_now

Trigger = Literal["images", "labels"]

# No automatic run starts for this time after a failed one, and for twice as long after each further one, up to 17
# hours.
FIRST_PAUSE = timedelta(minutes=2)
MAX_FAILURES = 10


@dataclass(frozen=True, slots=True)
class Pause:
    """Time in which no run starts by itself."""

    remaining: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class New:
    """Numbers of new images and labels, up to what makes a run due."""

    images: int
    labels: int

    def trigger(self, settings: Settings) -> Trigger | None:
        """Return what makes a run due, if anything does; pauses aside."""
        if 0 < settings.retrain_after_images <= self.images:
            return "images"
        return "labels" if 0 < settings.retrain_after_labels <= self.labels else None


def count_new(session: Session, settings: Settings) -> New:
    """Count new images and labels."""
    return New(new_images(session, settings.retrain_after_images), new_labels(session, settings.retrain_after_labels))


def new_images(session: Session, limit: int) -> int:
    """Count unlabelled images, up to a limit, after the snapshot of the last run that learned or was cancelled.

    Near-duplicates of earlier images do not count, once the worker has recognised them.
    """
    last = _learned(session, Run.image_sequence)
    newer = select(Image.id).where(Image.mask_sha256.is_(None), Image.duplicate_of.is_(None), Image.sequence > last)
    # PostgreSQL would read the whole table for a limit without an order.
    return _count(session, newer.order_by(Image.sequence), limit)


def new_labels(session: Session, limit: int) -> int:
    """Count labels, new or replaced, up to a limit, after the snapshot of the last run that learned or was cancelled.

    An image that was labelled twice counts once.
    """
    last = _learned(session, Run.label_sequence)
    newer = select(Image.id).where(Image.mask_sha256.is_not(None), Image.label_sequence > last)
    return _count(session, newer.order_by(Image.label_sequence), limit)


def find_pause(session: Session, settings: Settings) -> Pause | None:
    """Return the pause in which no run starts by itself, if there is one."""
    pauses = (
        Pause(pause_after_failures(session), "the last run failed: see its `error` in GET /v1/runs"),
        Pause(cooldown(session, settings), "a run has just ended (MASKLOOP_RETRAIN_COOLDOWN_S)"),
    )
    longest = max(pauses, key=lambda pause: pause.remaining)
    return longest if longest.remaining > timedelta(0) else None


def pause_after_failures(session: Session) -> timedelta:
    """Return how long no run starts by itself, since the last ones failed."""
    ended = select(Run.status, Run.finished_at).where(Run.status.not_in(ACTIVE)).order_by(Run.number.desc())
    failures, last = 0, None
    for status, finished_at in session.execute(ended.limit(MAX_FAILURES)):
        if status != "failed":
            break
        failures, last = failures + 1, last or finished_at
    return _remaining(FIRST_PAUSE * 2 ** (failures - 1), last) if failures else timedelta(0)


def cooldown(session: Session, settings: Settings) -> timedelta:
    """Return how long no run starts by itself, since one has just ended."""
    ended = select(Run.finished_at).where(Run.status.not_in(ACTIVE)).order_by(Run.number.desc())
    return _remaining(timedelta(seconds=settings.retrain_cooldown_s), session.scalars(ended.limit(1)).first())


def _remaining(pause: timedelta, since: datetime | None) -> timedelta:
    passed = utc_now() - since if since else pause
    # A clock that was set back must not extend the pause.
    return max(pause - passed, timedelta(0)) if passed >= timedelta(0) else timedelta(0)


def _learned(session: Session, sequence: InstrumentedAttribute[int | None]) -> int:
    learned = select(func.max(sequence)).where(Run.status.not_in((*ACTIVE, "failed")))
    return session.scalar(learned) or 0


def _count(session: Session, query: Select[str], limit: int) -> int:
    return session.scalars(select(func.count()).select_from(query.limit(limit).subquery())).one()
