"""Prometheus metrics from the database: pool, runs, releases and workers.

A thread reads them, and scrapes share the result. If the database does not answer,
`maskloop_database_up` is 0 and the other metrics are absent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from service.analyses.analysis_gauges import Analyses, analysis_gauges, read_analyses
from service.releases.rollout.disagreement import Disagreement
from service.retention.retention_gauges import Storage, read_storage, retention_gauges
from service.runs.leases.liveness import Liveness
from service.storage.database import Database
from service.storage.tables import Pool, Release, ReleaseState, Role, Run, RunStatus, WebhookMessage

log = structlog.stdlib.get_logger(__name__)

FRESH_S = 5.0
"""Time for which a count is reused."""
STALE_S = 60.0
"""Age from which a count is not reported."""
MAX_WAIT_S = 1.0
"""Longest wait of a scrape."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Images by role, their total size, runs by status, the last verdict, workers by `can_train`."""

    images: dict[str, int]
    image_bytes: int
    runs: dict[str, int]
    last_success: datetime | None
    workers: dict[bool, int]
    releases: dict[str, int]
    newest_release: Release | None
    webhooks: int
    """Messages that the webhook has not accepted yet."""
    analyses: Analyses
    storage: Storage


class DatabaseCollector(Collector):
    """Prometheus collector of the last counts. `refresh` belongs to one event loop."""

    def __init__(self, database: Database, liveness: Liveness) -> None:
        self._database = database
        self._liveness = liveness
        self._counts: Counts | None = None
        self._counted_at = -float("inf")
        self._task: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Count again if the last count is too old; wait at most `MAX_WAIT_S`."""
        if self._task is None:
            if time.monotonic() - self._counted_at < FRESH_S:
                return
            self._task = asyncio.create_task(self._count())
        await asyncio.wait([self._task], timeout=MAX_WAIT_S)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges of the last count."""
        counts = self._counts if time.monotonic() - self._counted_at < STALE_S else None
        yield GaugeMetricFamily("maskloop_database_up", "Whether the database answers.", value=counts is not None)
        if counts is not None:
            yield from _gauges(counts)

    async def _count(self) -> None:
        try:
            self._counts = await asyncio.to_thread(self._read_counts)
        except Exception as error:
            self._counts = None
            log.warning("cannot count the database", reason=str(error))
        finally:
            self._counted_at = time.monotonic()
            self._task = None

    def _read_counts(self) -> Counts:
        with self._database.read() as session:
            pool = session.get_one(Pool, 1)
            runs = session.execute(select(Run.status, func.count()).group_by(Run.status)).all()
            releases = session.execute(select(Release.state, func.count()).group_by(Release.state)).all()
            able = [worker.can_train for worker in self._liveness.living(session)]
            return Counts(
                images={role: getattr(pool, role) for role in get_args(Role)},
                image_bytes=pool.bytes,
                runs=dict.fromkeys(get_args(RunStatus), 0) | dict(runs),
                last_success=session.scalar(select(func.max(Run.finished_at)).where(Run.status == "judged")),
                workers={ability: able.count(ability) for ability in (False, True)},
                releases=dict.fromkeys(get_args(ReleaseState), 0) | dict(releases),
                newest_release=session.scalars(select(Release).order_by(Release.id.desc()).limit(1)).first(),
                webhooks=session.scalars(select(func.count()).select_from(WebhookMessage)).one(),
                analyses=read_analyses(session),
                storage=read_storage(session),
            )


def _gauges(counts: Counts) -> Iterator[GaugeMetricFamily]:
    yield _labelled("maskloop_pool_images", "Images in the pool, by role.", "role", counts.images)
    yield GaugeMetricFamily(
        "maskloop_pool_bytes", "Total size of the encoded images in the pool.", value=counts.image_bytes
    )
    yield _labelled("maskloop_runs", "Retraining runs, by status.", "status", counts.runs)
    if counts.last_success is not None:
        yield GaugeMetricFamily(
            "maskloop_run_last_success_timestamp_seconds",
            "Time when a run last ended with a verdict; time() minus this is its age.",
            value=counts.last_success.timestamp(),
        )
    yield from _release_gauges(counts)
    yield GaugeMetricFamily(
        "maskloop_webhooks_pending", "Messages that the webhook has not accepted yet.", value=counts.webhooks
    )
    workers = {str(able).lower(): count for able, count in counts.workers.items()}
    yield _labelled("maskloop_workers", "Live workers, by whether they can train.", "can_train", workers)
    yield from analysis_gauges(counts.analyses)
    yield from retention_gauges(counts.storage)


def _release_gauges(counts: Counts) -> Iterator[GaugeMetricFamily]:
    yield _labelled("maskloop_releases", "Releases, by state.", "state", counts.releases)
    newest = counts.newest_release
    if newest is None:
        return
    info = GaugeMetricFamily("maskloop_release_info", "1 for the newest release.", labels=["version", "state"])
    info.add_metric([newest.version, newest.state], 1)
    yield info
    share = Disagreement(**newest.shadow).share if newest.shadow else None
    if share is not None:
        yield GaugeMetricFamily(
            "maskloop_release_disagreement",
            "Share of pixels (0..1) to which the newest release, as a shadow, gave another class.",
            value=share,
        )


def _labelled(name: str, documentation: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
