"""Gauges of the pool, the runs and the workers; a slow database delays no scrape."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

import service.database_collector
from service.database_collector import Counts, DatabaseCollector
from service.process_identity import process_identity
from service.state import State
from service.storage.tables import Model, Release, Run, RunStatus, Worker
from service.webhooks.outbox import add_message
from tests.service.class_lists import TINY
from tests.service.conftest import encoded
from tests.service.tiny_bundle import nearest, picture

SUCCESS = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def registry_of(collector: DatabaseCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scrape reads the database."""
    monkeypatch.setattr(service.database_collector, "FRESH_S", 0.0)


def add_run(state: State, number: int, status: RunStatus, finished_at: datetime | None = None) -> None:
    with state.database.write() as session:
        session.add(Run(id=f"r{number}", number=number, status=status, reason="auto", finished_at=finished_at))


@pytest.mark.usefixtures("uncached")
async def test_pool_runs_and_workers_are_counted(state: State) -> None:
    files = [encoded(picture(seed=seed)) for seed in range(3)]
    ids = [state.images.add(data)[0].id for data in files]
    mask = encoded(nearest(picture(seed=0), ((0, 0, 0), (255, 255, 255))))
    state.images.put_mask(ids[0], mask, classes=TINY, split="val")
    registry = registry_of(state.database_collector)
    await state.database_collector.refresh()
    assert registry.get_sample_value("maskloop_run_last_success_timestamp_seconds") is None
    add_run(state, 1, "judged", SUCCESS)
    add_run(state, 2, "judged", SUCCESS - timedelta(days=1))
    add_run(state, 3, "failed", SUCCESS + timedelta(days=1))
    add_run(state, 4, "running")
    with state.database.write() as session:
        session.add(Worker(id="alive", can_train=True, pid=1, host="a"))
        # No process of this machine has started at tick 0.
        own = process_identity(os.getpid())
        assert own is not None
        session.add(Worker(id="dead", can_train=True, pid=2, host="a", process=f"{own.rpartition(' ')[0]} 0"))
    await state.database_collector.refresh()

    def values(name: str, label: str) -> dict[str, float]:
        samples = [sample for family in registry.collect() for sample in family.samples if sample.name == name]
        return {sample.labels[label]: sample.value for sample in samples}

    assert values("maskloop_pool_images", "role") == {"labelled": 0, "val": 1, "unlabelled": 2}
    assert registry.get_sample_value("maskloop_pool_bytes") == sum(map(len, files))
    zeros = dict.fromkeys(("queued", "cancelled"), 0)
    assert values("maskloop_runs", "status") == zeros | {"running": 1, "judged": 2, "failed": 1}
    assert values("maskloop_workers", "can_train") == {"true": 1, "false": 0}
    last = registry.get_sample_value("maskloop_run_last_success_timestamp_seconds")
    assert last == SUCCESS.timestamp()
    assert registry.get_sample_value("maskloop_database_up") == 1


@pytest.mark.usefixtures("uncached")
async def test_newest_release_is_shown(state: State) -> None:
    registry = registry_of(state.database_collector)
    await state.database_collector.refresh()
    assert registry.get_sample_value("maskloop_releases", {"state": "withdrawn"}) == 0
    assert [family.name for family in registry.collect() if family.name == "maskloop_release_info"] == []
    shadow = {"images": 1, "pixels": {"a": 30, "b": 10}, "different": {"a": 0, "b": 4}}
    add_run(state, 1, "judged")
    add_run(state, 2, "judged")
    with state.database.write() as session:
        session.add(Model(version="v", name="n", path="p", state="candidate"))
        session.flush()
        common: dict[str, Any] = {"version": "v", "verdict": {}, "reason": "because"}
        session.add(Release(id=1, run_id="r1", state="withdrawn", **common))
        session.add(Release(id=2, run_id="r2", state="shadow", shadow=shadow, **common))
        add_message(session, "release.shadow", {})
    await state.database_collector.refresh()
    assert registry.get_sample_value("maskloop_releases", {"state": "withdrawn"}) == 1
    assert registry.get_sample_value("maskloop_release_info", {"version": "v", "state": "shadow"}) == 1
    assert registry.get_sample_value("maskloop_release_disagreement") == 0.1
    assert registry.get_sample_value("maskloop_webhooks_pending") == 1


async def test_concurrent_scrapes_share_one_read(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    read_counts = DatabaseCollector._read_counts

    def counting(self: DatabaseCollector) -> Counts:
        nonlocal reads
        reads += 1
        time.sleep(0.1)
        return read_counts(self)

    monkeypatch.setattr(DatabaseCollector, "_read_counts", counting)

    await asyncio.gather(*(state.database_collector.refresh() for _ in range(20)))
    for _ in range(20):
        await state.database_collector.refresh()
    assert reads == 1


async def test_slow_database_blocks_neither_loop_nor_scrape(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    read_counts = DatabaseCollector._read_counts

    def read_when_released(self: DatabaseCollector) -> Counts:
        assert release.wait(60)
        return read_counts(self)

    monkeypatch.setattr(DatabaseCollector, "_read_counts", read_when_released)
    monkeypatch.setattr(service.database_collector, "MAX_WAIT_S", 0.05)
    registry = registry_of(state.database_collector)

    for _ in range(3):
        await asyncio.wait_for(state.database_collector.refresh(), 10)
        assert registry.get_sample_value("maskloop_database_up") == 0
        assert registry.get_sample_value("maskloop_pool_bytes") is None
    release.set()
    monkeypatch.setattr(service.database_collector, "MAX_WAIT_S", 60.0)
    await state.database_collector.refresh()
    assert registry.get_sample_value("maskloop_database_up") == 1
    assert registry.get_sample_value("maskloop_pool_bytes") == 0


@pytest.mark.usefixtures("uncached")
def test_failing_database_is_reported_and_other_metrics_remain(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "maskloop_pool_bytes 0.0" in client.get("/metrics").text

    def broken(_self: DatabaseCollector) -> Counts:
        raise OSError("unreachable")

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseCollector, "_read_counts", broken)
        text = client.get("/metrics").text
        assert "maskloop_database_up 0.0" in text
        assert "maskloop_pool" not in text
        assert "maskloop_segment_admitted 0.0" in text
    assert "maskloop_database_up 1.0" in client.get("/metrics").text


async def test_stale_counts_are_not_exported(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    await state.database_collector.refresh()
    monkeypatch.setattr(service.database_collector, "STALE_S", 0.0)
    assert registry_of(state.database_collector).get_sample_value("maskloop_pool_bytes") is None
