"""Claiming, cancelling, and what becomes of runs whose worker died."""

from __future__ import annotations

from datetime import timedelta

import pytest

from service.errors import RunNotActive, RunNotFound
from service.runs.lease import LeaseLost, claim
from service.runs.reaper import MAX_ATTEMPTS, reap
from service.state import State
from service.storage.tables import Run, utc_now
from tests.service.conftest import eventually
from tests.service.runs.conftest import employ, fill


@pytest.fixture
def run(loop: State) -> Run:
    fill(loop)
    employ(loop)
    return loop.retrain_policy.start("manual")


def silence(state: State, run_id: str) -> None:
    with state.database.write() as session:
        row = session.get(Run, run_id)
        assert row is not None
        row.heartbeat_at = utc_now() - timedelta(hours=1)


def test_a_run_is_claimed_once(loop: State, run: Run) -> None:
    assert claim(loop.database, run.id) is not None
    assert claim(loop.database, run.id) is None
    assert claim(loop.database, "no such run") is None
    row = loop.runs.get(run.id)
    assert (row.status, row.attempts) == ("running", 1)
    assert row.started_at is not None


def test_a_queued_run_is_cancelled_at_once_and_a_running_one_is_asked(loop: State, run: Run) -> None:
    assert loop.runs.request_cancel(run.id).status == "cancelled"
    with pytest.raises(RunNotActive):
        loop.runs.request_cancel(run.id)
    with pytest.raises(RunNotFound):
        loop.runs.request_cancel("nobody")
    assert claim(loop.database, run.id) is None
    second = loop.retrain_policy.start("manual")
    lease = claim(loop.database, second.id)
    assert lease is not None
    with lease.with_heartbeat(0.1):
        assert loop.runs.request_cancel(second.id).status == "running"
        eventually(lambda: lease.interruption == "cancelled")


def test_the_heartbeat_keeps_a_run_from_the_reaper(loop: State, run: Run) -> None:
    lease = claim(loop.database, run.id)
    assert lease is not None
    silence(loop, run.id)
    with lease.with_heartbeat(0.05):
        eventually(lambda: (loop.runs.get(run.id).heartbeat_at or utc_now()) > utc_now() - timedelta(minutes=1))
        assert reap(loop.database, 5.0) == []


def test_a_silent_run_is_queued_again_and_its_old_worker_can_write_no_more(loop: State, run: Run) -> None:
    old = claim(loop.database, run.id)
    assert old is not None
    silence(loop, run.id)
    assert reap(loop.database, 5.0) == [run.id]
    with pytest.raises(LeaseLost):
        old.phase("train")
    new = claim(loop.database, run.id)
    assert new is not None
    with pytest.raises(LeaseLost):
        old.finish("failed", "it woke up")
    with old.with_heartbeat(0.05):
        eventually(lambda: old.interruption == "lost")
    new.finish("succeeded")
    assert loop.runs.get(run.id).status == "succeeded"


def test_a_run_that_kills_its_workers_is_given_up(loop: State, run: Run) -> None:
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert claim(loop.database, run.id) is not None, attempt
        silence(loop, run.id)
        reap(loop.database, 5.0)
    row = loop.runs.get(run.id)
    assert (row.status, row.attempts) == ("failed", MAX_ATTEMPTS)
    assert "log.txt" in (row.error or "")
    assert loop.retrain_policy.start("manual").status == "queued"


def test_giving_a_run_back_in_good_order_costs_no_attempt(loop: State, run: Run) -> None:
    for _ in range(MAX_ATTEMPTS + 2):
        lease = claim(loop.database, run.id)
        assert lease is not None
        lease.release()
    assert loop.runs.get(run.id).status == "queued"
    assert loop.runs.get(run.id).attempts == 0


def test_events_are_read_on_from_where_one_was(loop: State, run: Run) -> None:
    lease = claim(loop.database, run.id)
    assert lease is not None
    lease.phase("train")
    lease.progress({"event": "progress", "step": 1, "steps": 3, "loss": 0.5})
    lease.progress({"event": "progress", "step": 2, "steps": 3, "loss": 0.4})
    lease.progress({"event": "progress", "step": 3, "steps": 3, "loss": 0.3})
    lease.finish("failed", "no")
    events = loop.runs.events(run.id)
    assert [e.event["event"] for e in events] == ["queued", "started", "phase", "progress", "progress", "finished"]
    # The second came too soon after the first; the last always counts.
    assert [e.event["step"] for e in events if e.event["event"] == "progress"] == [1, 3]
    assert [e.id for e in loop.runs.events(run.id, after=events[2].id)] == [e.id for e in events[3:]]
    assert len(loop.runs.events(run.id, limit=2)) == 2


def test_what_everybody_may_read_names_no_folders(loop: State, run: Run) -> None:
    lease = claim(loop.database, run.id)
    assert lease is not None
    lease.record({}, "done", checkpoint="/data/runs/1/train/model.safetensors", miou=0.5)
    lease.finish("failed", "`-m trainer train` ended: no /data/runs/1/train/resume.pt")
    assert loop.runs.get(run.id).error == "`-m trainer train` ended: no resume.pt"
    said = [row.event for row in loop.runs.events(run.id)]
    assert {"event": "done", "checkpoint": "model.safetensors", "miou": 0.5} in said
    assert "/data" not in str(said)
