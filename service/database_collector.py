"""What the database knows of the pool, the runs and the workers, counted now and then for Prometheus.

Counting takes as long as the pool is large, so scrapes share a count, which a thread makes and which is good for a few
seconds. A database that does not answer holds up no scrape: `maskloop_database_up` is 0 then, and the rest is absent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from service.runs.reaper import SILENT_HEARTBEATS
from service.storage.database import Database
from service.storage.tables import Image, Role, Run, RunStatus, Worker, utc_now

log = structlog.stdlib.get_logger(__name__)

FRESH_S = 5.0
"""How long a count is good."""
STALE_S = 60.0
"""After which it is not told any more, if no newer one could be made."""
PATIENCE_S = 1.0
"""How long a scrape waits for a count."""


@dataclass(frozen=True, slots=True)
class Counts:
    """One look at the database.

    Attributes:
        images: In the pool, by what they are for.
        image_bytes: Of the encoded images, together.
        runs: By status.
        last_success: When a run last put a model into service; None: none ever did.
        workers: That are alive, by whether they can train.
    """

    images: dict[str, int]
    image_bytes: int
    runs: dict[str, int]
    last_success: datetime | None
    workers: dict[bool, int]


class DatabaseCollector(Collector):
    """The last count, as a collector of Prometheus. `refresh` belongs to one event loop.

    Args:
        database: Where to look.
        heartbeat_s: How often a worker says that it is alive.
    """

    def __init__(self, database: Database, heartbeat_s: float) -> None:
        self._database = database
        self._silent = timedelta(seconds=SILENT_HEARTBEATS * heartbeat_s)
        self._counts: Counts | None = None
        self._counted_at = -float("inf")
        self._task: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Count anew, if the last count is no longer good; waits a moment for it, and not longer."""
        if self._task is None:
            if time.monotonic() - self._counted_at < FRESH_S:
                return
            self._task = asyncio.create_task(self._count())
        await asyncio.wait([self._task], timeout=PATIENCE_S)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges of the last count."""
        counts = self._counts if time.monotonic() - self._counted_at < STALE_S else None
        yield GaugeMetricFamily("maskloop_database_up", "Whether the database answers.", value=counts is not None)
        if counts is not None:
            yield from _gauges(counts)

    async def _count(self) -> None:
        try:
            self._counts = await asyncio.to_thread(self._look)
        except Exception as error:
            self._counts = None
            log.warning("the database cannot be counted", because=str(error))
        finally:
            self._counted_at = time.monotonic()
            self._task = None

    def _look(self) -> Counts:
        alive = Worker.seen_at >= utc_now() - self._silent
        with self._database.read() as session:
            images = session.execute(select(Image.split, func.count(), func.sum(Image.bytes)).group_by(Image.split))
            pool = {split or "unlabelled": (count, size) for split, count, size in images}
            runs = session.execute(select(Run.status, func.count()).group_by(Run.status)).all()
            able = select(Worker.can_train, func.count()).where(alive).group_by(Worker.can_train)
            workers = session.execute(able).all()
            return Counts(
                images={kind: pool.get(kind, (0, 0))[0] for kind in get_args(Role)},
                image_bytes=sum(size for _, size in pool.values()),
                runs=dict.fromkeys(get_args(RunStatus), 0) | dict(runs),
                last_success=session.scalar(select(func.max(Run.finished_at)).where(Run.status == "succeeded")),
                workers={False: 0, True: 0} | dict(workers),
            )


def _gauges(counts: Counts) -> Iterator[GaugeMetricFamily]:
    yield _by("maskloop_pool_images", "Images in the pool, by what they are for.", "role", counts.images)
    yield GaugeMetricFamily("maskloop_pool_bytes", "Of the pool's encoded images.", value=counts.image_bytes)
    yield _by("maskloop_runs", "Retraining runs, by status.", "status", counts.runs)
    if counts.last_success is not None:
        yield GaugeMetricFamily(
            "maskloop_run_last_success_timestamp_seconds",
            "When a run last put a model into service; time() less this is how long ago that was.",
            value=counts.last_success.timestamp(),
        )
    workers = {str(able).lower(): count for able, count in counts.workers.items()}
    yield _by("maskloop_workers", "Workers that are alive, by whether they can train.", "can_train", workers)


def _by(name: str, documentation: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
