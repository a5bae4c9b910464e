"""What has reached the limits of retention: reading only, the same for the sweep and for the preview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, ColumnElement, func, select, type_coerce
from sqlalchemy.orm import Session

from service.retention.operating_clock import hour_before, newest_image_before
from service.settings import Settings
from service.storage.deletion_columns import DeletionReason
from service.storage.tables import ACTIVE, Image, Model, Pool, Run

MIN_DAYS = 1.0
"""A model or run that was in use within this time is not deleted because of its size."""
UNLABELLED_IMAGE: ColumnElement[bool] = Image.mask_sha256.is_(None)


@dataclass(frozen=True, slots=True)
class Limit:
    """Limits of one kind: age in days, and total size in bytes; 0: none."""

    days: float = 0.0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of all kinds."""

    images: Limit = Limit()
    runs: Limit = Limit()
    models: Limit = Limit()


def limits_of(settings: Settings) -> Limits:
    """Limits of the settings."""
    return Limits(
        Limit(settings.keep_images_days, settings.keep_images_bytes),
        Limit(settings.keep_runs_days, settings.keep_runs_bytes),
        Limit(settings.keep_models_days, settings.keep_models_bytes),
    )


@dataclass(frozen=True, slots=True)
class ExpiredImages:
    """Number and size of the unlabelled images that are to be deleted, the oldest ones."""

    by_age: int
    by_bytes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A model, or the files of a run."""

    name: str
    """Version or id."""
    bytes: int
    """0 if not measured yet."""
    unused_since: int | None
    """Operating hour; None: not seen yet."""
    in_use: str | None
    """Why it must stay, a clause."""


@dataclass(frozen=True, slots=True)
class Expired:
    """A model, or the files of a run, to be deleted."""

    name: str
    bytes: int
    reason: DeletionReason


def newest_expired_image(session: Session, limit: Limit, hour: int) -> int:
    """Return the sequence up to which unlabelled images have reached the age; 0: none has."""
    return newest_image_before(session, hour_before(hour, limit.days)) if limit.days else 0


def excess_bytes(session: Session, limit: Limit) -> int:
    """Return by how much the unlabelled images exceed the limit of bytes."""
    return max(session.get_one(Pool, 1).unlabelled_bytes - limit.bytes, 0) if limit.bytes else 0


def count_expired_images(session: Session, limit: Limit, hour: int) -> ExpiredImages:
    """Count the images that are to be deleted."""
    newest = newest_expired_image(session, limit, hour)
    totals = func.count(), func.coalesce(func.sum(Image.bytes), 0)
    old, old_bytes = session.execute(select(*totals).where(UNLABELLED_IMAGE, Image.sequence <= newest)).one()
    excess = excess_bytes(session, limit) - int(old_bytes)
    if excess <= 0:
        return ExpiredImages(old, 0, int(old_bytes))
    # Otherwise the limit would be sent to PostgreSQL as an integer of 32 bits.
    older_bytes = type_coerce(func.sum(Image.bytes).over(order_by=Image.sequence) - Image.bytes, BigInteger)
    rest = select(Image.bytes, older_bytes.label("older_bytes")).where(UNLABELLED_IMAGE, Image.sequence > newest)
    each = rest.subquery()
    large = select(func.count(), func.coalesce(func.sum(each.c.bytes), 0)).where(each.c.older_bytes < excess)
    more, more_bytes = session.execute(large).one()
    return ExpiredImages(old, more, int(old_bytes + more_bytes))


def stored_models(session: Session, in_use: Mapping[str, str]) -> list[Stored]:
    """List the models that are not deleted, those in use with the reason."""
    query = select(Model.version, Model.bytes, Model.unused_since).where(Model.deleted_at.is_(None))
    rows = session.execute(query.order_by(Model.unused_since, Model.created_at, Model.version))
    return [Stored(version, size or 0, since, in_use.get(version)) for version, size, since in rows]


def stored_runs(session: Session, in_use: Mapping[str, str]) -> list[Stored]:
    """List the runs that have ended and have files, those in use with the reason."""
    query = select(Run.id, Run.bytes, Run.unused_since).where(Run.deleted_at.is_(None), Run.bytes.is_not(None))
    rows = session.execute(query.where(Run.status.not_in(ACTIVE)).order_by(Run.unused_since, Run.number))
    return [Stored(run_id, size or 0, since, in_use.get(run_id)) for run_id, size, since in rows]


def choose_expired(stored: Sequence[Stored], limit: Limit, hour: int) -> list[Expired]:
    """Choose what has reached the age, then the longest unused until the rest is within the limit of bytes."""
    total = sum(each.bytes for each in stored)
    expired = []
    for each in stored:
        reason: DeletionReason | None = None
        if each.in_use or each.unused_since is None:
            continue
        if limit.days and each.unused_since <= hour_before(hour, limit.days):
            reason = "age"
        elif limit.bytes and total > limit.bytes and each.unused_since <= hour_before(hour, MIN_DAYS):
            reason = "bytes"
        if reason is not None:
            expired.append(Expired(each.name, each.bytes, reason))
            total -= each.bytes
    return expired
