"""What a run may write to the table of events."""

from __future__ import annotations

import json
import time

import pytest
from sqlalchemy import func, select

from service.runs.leases import event_budget
from service.runs.leases.lease import Lease, claim
from service.state import State
from service.storage.tables import RunEvent
from tests.service.runs.conftest import fill, register_worker


@pytest.fixture
def lease(loop: State) -> Lease:
    fill(loop)
    register_worker(loop)
    claimed = claim(loop.database, loop.retrain_policy.start("manual").id)
    assert claimed is not None
    return claimed


def count(loop: State) -> int:
    with loop.database.read() as session:
        return session.scalars(select(func.count()).select_from(RunEvent)).one()


def test_large_event_keeps_its_numbers(loop: State, lease: Lease) -> None:
    classes = {f"class {number}": 0.5 for number in range(1000)}
    lease.record({}, "evaluation", step=5, miou=0.5, per_class=classes, note="x" * 10_000)
    event = loop.runs.events(lease.run_id)[-1].event
    assert (event["step"], event["miou"], event["shortened"]) == (5, 0.5, True)
    assert len(json.dumps(event)) <= event_budget.MAX_EVENT_BYTES + 100


def test_run_that_writes_too_many_events_still_ends_in_one(
    loop: State, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_budget, "MAX_EVENTS", 10)
    for number in range(20):
        lease.record({"step": number}, "notice", message=str(number))
    assert count(loop) == 10
    # The columns are written all the same.
    assert loop.runs.get(lease.run_id).step == 19
    lease.finish("failed", "planned")
    assert loop.runs.events(lease.run_id)[-1].event["event"] == "finished"


def test_progress_events_become_rarer_and_the_run_stays_exact(
    loop: State, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of training, a step a second."""
    start, clock = time.monotonic(), [0.0]
    monkeypatch.setattr("service.runs.leases.lease.time.monotonic", lambda: start + clock[0])
    before = count(loop)
    for step in range(1, 2001):
        clock[0] = step * 43.2
        lease.progress({"event": "progress", "step": step, "steps": 2001, "loss": 0.5})
    assert 500 < count(loop) - before < 1500
    assert loop.runs.get(lease.run_id).step == 2000
