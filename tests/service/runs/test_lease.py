"""Leases of runs: claim, cancel, heartbeat, and runs whose worker died."""

from __future__ import annotations

from datetime import timedelta

import pytest

from service.errors import RunNotActive, RunNotFound
from service.runs.lease import LeaseLost, claim
from service.runs.reaper import MAX_ATTEMPTS, reap
from service.state import State
from service.storage.tables import Run, utc_now
from tests.service.conftest import eventually
from tests.service.runs.conftest import fill, register_worker


@pytest.fixture
def run(loop: State) -> Run:
    fill(loop)
    register_worker(loop)
    return loop.retrain_policy.start("manual")


def expire_heartbeat(state: State, run_id: str) -> None:
    with state.database.write() as session:
        row = session.get(Run, run_id)
        assert row is not None
        row.heartbeat_at = utc_now() - timedelta(hours=1)


def test_run_is_claimed_once(loop: State, run: Run) -> None:
    assert claim(loop.database, run.id) is not None
    assert claim(loop.database, run.id) is None
    assert claim(loop.database, "no such run") is None
    row = loop.runs.get(run.id)
    assert (row.status, row.attempts) == ("running", 1)
    assert row.started_at is not None


def test_queued_run_is_cancelled_at_once_and_running_one_by_its_worker(loop: State, run: Run) -> None:
    assert loop.runs.request_cancel(run.id).status == "cancelled"
    with pytest.raises(RunNotActive):
        loop.runs.request_cancel(run.id)
    with pytest.raises(RunNotFound):
        loop.runs.request_cancel("unknown")
    assert claim(loop.database, run.id) is None
    second = loop.retrain_policy.start("manual")
    lease = claim(loop.database, second.id)
    assert lease is not None
    with lease.with_heartbeat(0.1):
        assert loop.runs.request_cancel(second.id).status == "running"
        eventually(lambda: lease.interruption == "cancelled")


def test_run_with_a_fresh_heartbeat_is_not_reaped(loop: State, run: Run) -> None:
    lease = claim(loop.database, run.id)
    assert lease is not None
    expire_heartbeat(loop, run.id)
    with lease.with_heartbeat(0.05):
        eventually(lambda: (loop.runs.get(run.id).heartbeat_at or utc_now()) > utc_now() - timedelta(minutes=1))
        assert reap(loop.database, 5.0) == []


def test_run_without_heartbeat_is_queued_again_and_its_old_worker_loses_the_lease(loop: State, run: Run) -> None:
    old = claim(loop.database, run.id)
    assert old is not None
    expire_heartbeat(loop, run.id)
    assert reap(loop.database, 5.0) == [run.id]
    with pytest.raises(LeaseLost):
        old.phase("train")
    new = claim(loop.database, run.id)
    assert new is not None
    with pytest.raises(LeaseLost):
        old.finish("failed", "too late")
    with old.with_heartbeat(0.05):
        eventually(lambda: old.interruption == "lost")
    new.finish("judged")
    assert loop.runs.get(run.id).status == "judged"


def test_run_fails_after_the_maximum_number_of_attempts(loop: State, run: Run) -> None:
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert claim(loop.database, run.id) is not None, attempt
        expire_heartbeat(loop, run.id)
        reap(loop.database, 5.0)
    row = loop.runs.get(run.id)
    assert (row.status, row.attempts) == ("failed", MAX_ATTEMPTS)
    assert "log.txt" in (row.error or "")
    assert loop.retrain_policy.start("manual").status == "queued"


def test_release_does_not_count_as_an_attempt(loop: State, run: Run) -> None:
    for _ in range(MAX_ATTEMPTS + 2):
        lease = claim(loop.database, run.id)
        assert lease is not None
        lease.release()
    assert loop.runs.get(run.id).status == "queued"
    assert loop.runs.get(run.id).attempts == 0


def test_events_are_read_from_an_id_and_progress_is_thinned_out(loop: State, run: Run) -> None:
    lease = claim(loop.database, run.id)
    assert lease is not None
    lease.phase("train")
    lease.progress({"event": "progress", "step": 1, "steps": 3, "loss": 0.5})
    lease.progress({"event": "progress", "step": 2, "steps": 3, "loss": 0.4})
    lease.progress({"event": "progress", "step": 3, "steps": 3, "loss": 0.3})
    lease.finish("failed", "no")
    events = loop.runs.events(run.id)
    assert [e.event["event"] for e in events] == ["queued", "started", "phase", "progress", "progress", "finished"]
    # The second progress event follows the first too soon and is dropped; the last is always recorded.
    assert [e.event["step"] for e in events if e.event["event"] == "progress"] == [1, 3]
    assert [e.id for e in loop.runs.events(run.id, after=events[2].id)] == [e.id for e in events[3:]]
    assert len(loop.runs.events(run.id, limit=2)) == 2


def test_public_errors_and_events_name_no_folders(loop: State, run: Run) -> None:
    lease = claim(loop.database, run.id)
    assert lease is not None
    lease.record({}, "done", checkpoint="/data/runs/1/train/model.safetensors", miou=0.5)
    lease.finish("failed", "`-m trainer train` ended: no /data/runs/1/train/resume.pt")
    assert loop.runs.get(run.id).error == "`-m trainer train` ended: no resume.pt"
    events = [row.event for row in loop.runs.events(run.id)]
    assert {"event": "done", "checkpoint": "model.safetensors", "miou": 0.5} in events
    assert "/data" not in str(events)
