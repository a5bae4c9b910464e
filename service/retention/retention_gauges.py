"""Prometheus metrics of what is stored and what was deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.storage.deletion_columns import DeletionReason
from service.storage.tables import Model, Pool, Run

TABLES: dict[str, type[Model | Run]] = {"models": Model, "runs": Run}


@dataclass(frozen=True, slots=True)
class Storage:
    """Sizes in bytes by kind, and numbers of deletions by kind and reason."""

    bytes: dict[str, int]
    deleted: dict[tuple[str, str], int]


def read_storage(session: Session) -> Storage:
    """Read the present values."""
    pool = session.get_one(Pool, 1)
    sizes = {"unlabelled_images": pool.unlabelled_bytes}
    counts = {(kind, reason): 0 for kind in ("images", *TABLES) for reason in get_args(DeletionReason)}
    counts["images", "age"], counts["images", "bytes"] = pool.deleted_by_age, pool.deleted_by_bytes
    counts["images", "requested"] = pool.deletion_sequence - pool.deleted_by_age - pool.deleted_by_bytes
    for kind, table in TABLES.items():
        sizes[kind] = int(session.scalar(select(func.sum(table.bytes)).where(table.deleted_at.is_(None))) or 0)
        found = select(table.deletion_reason, func.count()).where(table.deleted_at.is_not(None))
        counts |= {(kind, str(why)): count for why, count in session.execute(found.group_by(table.deletion_reason))}
    return Storage(sizes, counts)


def retention_gauges(stored: Storage) -> Iterator[GaugeMetricFamily]:
    """Yield the gauges."""
    sizes = GaugeMetricFamily(
        "maskloop_stored_bytes", "Size of unlabelled images, models, and files of runs.", labels=["kind"]
    )
    for kind, size in stored.bytes.items():
        sizes.add_metric([kind], size)
    yield sizes
    deleted = GaugeMetricFamily(
        "maskloop_deleted", "Deleted images and models, and runs whose files were deleted.", labels=["kind", "reason"]
    )
    for labels, count in stored.deleted.items():
        deleted.add_metric(labels, count)
    yield deleted
