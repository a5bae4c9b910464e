"""The gauges of pool, runs and workers: what they say, and that nobody waits for them."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

import service.database_collector
from service.database_collector import Counts, DatabaseCollector
from service.state import State
from service.storage.tables import Run, RunStatus, Worker, utc_now
from tests.service.conftest import encoded
from tests.service.tiny_bundle import nearest, picture

SUCCESS = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def registry_of(census: DatabaseCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(census)
    return registry


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scrape counts anew."""
    monkeypatch.setattr(service.database_collector, "FRESH_S", 0.0)


def add_run(state: State, number: int, status: RunStatus, finished_at: datetime | None = None) -> None:
    with state.database.write() as session:
        session.add(Run(id=f"r{number}", status=status, reason="auto", finished_at=finished_at))


@pytest.mark.usefixtures("fresh")
def test_the_pool_the_runs_and_the_workers(state: State) -> None:
    files = [encoded(picture(seed=seed)) for seed in range(3)]
    ids = [state.images.add(data)[0].id for data in files]
    mask = encoded(nearest(picture(seed=0), ((0, 0, 0), (255, 255, 255))))
    state.images.put_mask(ids[0], mask, classes=5, ignore_index=255, split="val")
    registry = registry_of(state.database_collector)
    asyncio.run(state.database_collector.refresh())
    assert registry.get_sample_value("maskloop_run_last_success_timestamp_seconds") is None
    add_run(state, 1, "succeeded", SUCCESS)
    add_run(state, 2, "succeeded", SUCCESS - timedelta(days=1))
    add_run(state, 3, "failed", SUCCESS + timedelta(days=1))
    add_run(state, 4, "running")
    with state.database.write() as session:
        session.add(Worker(id="alive", can_train=True, pid=1, host="a"))
        session.add(Worker(id="dead", can_train=True, pid=2, host="a", seen_at=utc_now() - timedelta(hours=1)))
    asyncio.run(state.database_collector.refresh())

    def values(name: str, label: str) -> dict[str, float]:
        samples = [sample for family in registry.collect() for sample in family.samples if sample.name == name]
        return {sample.labels[label]: sample.value for sample in samples}

    assert values("maskloop_pool_images", "role") == {"labelled": 0, "val": 1, "unlabelled": 2}
    assert registry.get_sample_value("maskloop_pool_bytes") == sum(map(len, files))
    none = dict.fromkeys(("queued", "rejected", "cancelled"), 0)
    assert values("maskloop_runs", "status") == none | {"running": 1, "succeeded": 2, "failed": 1}
    assert values("maskloop_workers", "can_train") == {"true": 1, "false": 0}
    last = registry.get_sample_value("maskloop_run_last_success_timestamp_seconds")
    assert last == SUCCESS.timestamp()
    assert registry.get_sample_value("maskloop_database_up") == 1


def test_scrapes_share_a_count(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    look = DatabaseCollector._read_counts

    def counted(self: DatabaseCollector) -> Counts:
        nonlocal looks
        looks += 1
        time.sleep(0.1)
        return look(self)

    monkeypatch.setattr(DatabaseCollector, "_read_counts", counted)

    async def scene() -> None:
        await asyncio.gather(*(state.database_collector.refresh() for _ in range(20)))
        for _ in range(20):
            await state.database_collector.refresh()

    asyncio.run(scene())
    assert looks == 1


def test_a_slow_database_holds_up_neither_loop_nor_scrape(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    look = DatabaseCollector._read_counts

    def held(self: DatabaseCollector) -> Counts:
        assert go.wait(20)
        return look(self)

    monkeypatch.setattr(DatabaseCollector, "_read_counts", held)
    monkeypatch.setattr(service.database_collector, "MAX_WAIT_S", 0.05)
    registry = registry_of(state.database_collector)

    async def scene() -> None:
        for _ in range(3):
            await asyncio.wait_for(state.database_collector.refresh(), 10)
            assert registry.get_sample_value("maskloop_database_up") == 0
            assert registry.get_sample_value("maskloop_pool_bytes") is None
        go.set()
        monkeypatch.setattr(service.database_collector, "MAX_WAIT_S", 20.0)
        await state.database_collector.refresh()

    asyncio.run(scene())
    assert registry.get_sample_value("maskloop_database_up") == 1
    assert registry.get_sample_value("maskloop_pool_bytes") == 0


@pytest.mark.usefixtures("fresh")
def test_a_database_that_fails_is_said_and_the_rest_is_told(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "maskloop_pool_bytes 0.0" in client.get("/metrics").text

    def broken(_self: DatabaseCollector) -> Counts:
        raise OSError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseCollector, "_read_counts", broken)
        text = client.get("/metrics").text
        assert "maskloop_database_up 0.0" in text
        assert "maskloop_pool" not in text
        assert "maskloop_segment_admitted 0.0" in text
    assert "maskloop_database_up 1.0" in client.get("/metrics").text


def test_an_old_count_is_not_told_for_ever(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(state.database_collector.refresh())
    monkeypatch.setattr(service.database_collector, "STALE_S", 0.0)
    assert registry_of(state.database_collector).get_sample_value("maskloop_pool_bytes") is None
