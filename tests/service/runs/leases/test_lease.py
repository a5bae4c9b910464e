"""Leases of runs: claim, cancel, heartbeat, and runs whose worker died."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta

import pytest

from service.errors import RunNotActive, RunNotFound
from service.process_identity import has_ended, process_identity
from service.runs.leases.attempts import MAX_ATTEMPTS
from service.runs.leases.lease import Lease, LeaseLost, claim
from service.runs.leases.reaper import MIN_OBSERVATIONS, reap
from service.state import State
from service.storage.tables import Run, utc_now
from tests.service.conftest import eventually
from tests.service.runs.conftest import SteppedClock, fill, reap_silent, register_worker


@pytest.fixture
def run(loop: State) -> Run:
    fill(loop)
    register_worker(loop)
    return loop.retrain_policy.start("manual")


def claimed(state: State, run_id: str) -> Lease:
    lease = claim(state.database, run_id)
    assert lease is not None
    return lease


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


def test_run_with_a_heartbeat_is_not_reaped(loop: State, run: Run, clock: SteppedClock) -> None:
    lease = claimed(loop, run.id)
    for _ in range(2 * MIN_OBSERVATIONS):
        lease.record({}, "notice")
        assert reap(loop.database, loop.liveness) == []
        clock.step(10 * loop.liveness.limit_s)
    with lease.with_heartbeat(0.05):
        before = loop.runs.get(run.id).beats
        eventually(lambda: loop.runs.get(run.id).beats > before)


def test_run_is_reaped_only_after_several_silent_sweeps(loop: State, run: Run, clock: SteppedClock) -> None:
    """After a suspend, the sweep may see the heartbeat of its own process before that process can send another."""
    claimed(loop, run.id)
    for _ in range(MIN_OBSERVATIONS - 1):
        assert reap(loop.database, loop.liveness) == []
        clock.step(3600)
    assert reap(loop.database, loop.liveness) == [run.id]


@pytest.mark.parametrize("hours", [-48, 48])
def test_wall_clock_has_no_part_in_reaping(
    loop: State, run: Run, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    lease = claimed(loop, run.id)
    monkeypatch.setattr("service.runs.leases.lease.utc_now", lambda: utc_now() + timedelta(hours=hours))
    lease.phase("train")
    monkeypatch.undo()
    # A living run is not reaped, and a silent one is.
    assert reap(loop.database, loop.liveness) == []
    clock.step(2 * loop.liveness.limit_s)
    lease.record({}, "notice")
    assert reap(loop.database, loop.liveness) == []
    assert reap_silent(loop, clock) == [run.id]


def test_run_of_a_worker_that_ended_on_this_machine_is_queued_at_once(loop: State, run: Run) -> None:
    claimed(loop, run.id)
    assert reap(loop.database, loop.liveness) == []
    ended = subprocess.Popen(["sleep", "600"])
    holder = process_identity(ended.pid)
    assert holder is not None
    hold(loop, run.id, holder)
    assert reap(loop.database, loop.liveness) == []
    ended.kill()
    # A zombie has ended too.
    eventually(lambda: has_ended(holder))
    assert reap(loop.database, loop.liveness) == [run.id]
    ended.wait()


@pytest.mark.parametrize("part", ["boot", "namespace"])
def test_worker_of_another_machine_is_not_looked_up_here(loop: State, run: Run, part: str) -> None:
    claimed(loop, run.id)
    boot, namespace, pid, _ = (process_identity(os.getpid()) or "").split()
    other = {"boot": f"other {namespace}", "namespace": f"{boot} pid:[1]"}[part]
    hold(loop, run.id, f"{other} {pid} 1")
    assert reap(loop.database, loop.liveness) == []
    # Here, another process has got the id.
    hold(loop, run.id, f"{boot} {namespace} {pid} 1")
    assert reap(loop.database, loop.liveness) == [run.id]


def hold(state: State, run_id: str, holder: str) -> None:
    with state.database.write() as session:
        session.get_one(Run, run_id).holder = holder


def test_run_without_heartbeat_is_queued_again_and_its_old_worker_loses_the_lease(
    loop: State, run: Run, clock: SteppedClock
) -> None:
    old = claimed(loop, run.id)
    assert reap_silent(loop, clock) == [run.id]
    with pytest.raises(LeaseLost):
        old.phase("train")
    new = claimed(loop, run.id)
    assert new.fence > old.fence
    with pytest.raises(LeaseLost):
        old.finish("failed", "too late")
    with pytest.raises(LeaseLost):
        old.release()
    with pytest.raises(LeaseLost):
        old.end_attempt("killed")
    with pytest.raises(LeaseLost):
        old.saved({"event": "saved", "step": 7})
    with old.with_heartbeat(0.05):
        eventually(lambda: old.interruption == "lost")
    assert (loop.runs.get(run.id).attempts, loop.runs.get(run.id).saved_step) == (2, 0)
    new.finish("judged")
    assert loop.runs.get(run.id).status == "judged"


def test_run_fails_after_the_maximum_of_attempts_without_progress(loop: State, run: Run, clock: SteppedClock) -> None:
    for _ in range(MAX_ATTEMPTS):
        claimed(loop, run.id)
        reap_silent(loop, clock)
    row = loop.runs.get(run.id)
    assert (row.status, row.attempts) == ("failed", MAX_ATTEMPTS)
    assert (row.error or "").startswith("3 attempts ended without progress; the last one: its worker died")
    assert "log.txt" in (row.error or "")
    register_worker(loop)
    assert loop.retrain_policy.start("manual").status == "queued"


@pytest.mark.parametrize("proof", ["saved", "start"])
def test_attempts_with_progress_are_not_counted(loop: State, run: Run, clock: SteppedClock, proof: str) -> None:
    """The `start` of a resumed trainer proves progress, too: a power cut may lose the row's last changes."""
    fences = set()
    for attempt in range(1, 3 * MAX_ATTEMPTS):
        lease = claimed(loop, run.id)
        fences.add(lease.fence)
        lease.saved({"event": proof, "step": 10 * attempt})
        assert loop.runs.get(run.id).attempts == 1
        assert reap_silent(loop, clock) == [run.id]
    assert len(fences) == 3 * MAX_ATTEMPTS - 1
    # A state that was saved before is no progress.
    for _ in range(MAX_ATTEMPTS - 1):
        assert loop.runs.get(run.id).status == "queued"
        claimed(loop, run.id).saved({"event": proof, "step": 10})
        reap_silent(loop, clock)
    assert loop.runs.get(run.id).status == "failed"


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
