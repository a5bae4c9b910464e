"""Retrain policy: when a run starts, and the errors if it cannot."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from service.errors import MaskloopError, NoModel, NotEnoughImages, RunActive, TrainerMissing
from service.process_identity import process_identity
from service.runs.leases.lease import claim
from service.runs.worker.snapshot import take_snapshot
from service.settings import Settings
from service.state import State, open_state
from service.storage.tables import Run, Worker, utc_now
from tests.service.runs.conftest import BAD, SteppedClock, fill, register_worker


def snapshot(loop: State, run_id: str) -> None:
    lease = claim(loop.database, run_id)
    assert lease is not None
    assert take_snapshot(lease)
    assert not take_snapshot(lease)


def test_enough_new_images_start_one_run_and_its_worker_takes_a_snapshot_of_the_pool(loop: State) -> None:
    ids = fill(loop, val=1)
    register_worker(loop)
    run = loop.retrain_policy.consider()
    assert run is not None
    assert (run.status, run.reason, run.base_version, run.attempts) == ("queued", "images", BAD, 0)
    assert loop.retrain_policy.consider() is None
    snapshot(loop, run.id)
    assert {label.image_id: label.split for label in loop.runs.labels(run.id)} == dict(
        zip(ids[:3], ("labelled", "labelled", "val"), strict=True)
    )
    assert [image.image_id for image in loop.runs.unlabelled(run.id)] == ids[3:]
    queued, _, taken = loop.runs.events(run.id)
    assert queued.event == {"event": "queued", "reason": "images"}
    assert taken.event == {"event": "snapshot", "images": {"labelled": 2, "val": 1, "unlabelled": 3}, "accepted": 0}


def test_next_run_counts_only_images_added_after_the_last_snapshot(loop: State) -> None:
    fill(loop)
    register_worker(loop)
    first = loop.retrain_policy.consider()
    assert first is not None
    loop.runs.request_cancel(first.id)
    assert loop.retrain_policy.consider() is None
    fill(loop, labelled=0, val=0, unlabelled=2, seed=1)
    assert loop.retrain_policy.consider() is None
    fill(loop, labelled=0, val=0, unlabelled=1, seed=2)
    second = loop.retrain_policy.consider()
    assert second is not None
    snapshot(loop, second.id)
    assert len(loop.runs.unlabelled(second.id)) == 6


@pytest.mark.parametrize(
    ("pool", "error", "remedy"),
    [
        ({"labelled": 1}, NotEnoughImages, "split=labelled"),
        ({"val": 0}, NotEnoughImages, "split=val"),
    ],
)
def test_missing_images_are_named_in_the_error(
    loop: State, pool: dict[str, int], error: type[MaskloopError], remedy: str
) -> None:
    fill(loop, **pool)
    register_worker(loop)
    with pytest.raises(error, match=remedy):
        loop.retrain_policy.start("manual")
    assert loop.retrain_policy.consider() is None
    assert not loop.runs.list()


def test_only_a_due_run_that_cannot_start_is_logged_and_only_once(loop: State) -> None:
    fill(loop, labelled=1, val=1, unlabelled=0)
    register_worker(loop)
    with capture_logs() as entries:
        assert loop.retrain_policy.consider() is None
        assert not entries
        fill(loop, labelled=0, val=0, unlabelled=3, seed=1)
        assert loop.retrain_policy.consider() is None
        assert loop.retrain_policy.consider() is None
    (entry,) = (entry for entry in entries if entry["log_level"] == "warning")
    assert "labelled for training is 1, and must be at least 2" in entry["reason"]


def test_missing_worker_and_missing_trainer_are_distinct_errors(loop: State) -> None:
    fill(loop)
    with pytest.raises(TrainerMissing, match="maskloop worker"):
        loop.retrain_policy.start("manual")
    register_worker(loop, can_train=False)
    with pytest.raises(TrainerMissing, match=r"trainer,exporter"):
        loop.retrain_policy.start("manual")
    register_worker(loop)
    assert loop.retrain_policy.start("manual").reason == "manual"
    with pytest.raises(RunActive, match="cancel"):
        loop.retrain_policy.start("manual")


@pytest.mark.parametrize("hours", [-48, 48])
def test_silent_worker_does_not_count_whatever_its_clock_says(loop: State, clock: SteppedClock, hours: int) -> None:
    fill(loop)
    register_worker(loop)
    with loop.database.write() as session:
        session.execute(update(Worker).values(seen_at=utc_now() + timedelta(hours=hours)))
    with loop.database.read() as session:
        assert len(loop.liveness.living(session)) == 1
    clock.step(loop.liveness.limit_s)
    assert loop.retrain_policy.consider() is None
    register_worker(loop)
    assert loop.retrain_policy.consider() is not None


def test_worker_that_ended_on_this_machine_does_not_count(loop: State) -> None:
    fill(loop)
    process = subprocess.Popen(["sleep", "600"])
    heartbeat = Worker(id="x", can_train=True, pid=1, host="test", process=process_identity(process.pid))
    with loop.database.write() as session:
        session.add(heartbeat)
    process.kill()
    process.wait()
    with pytest.raises(TrainerMissing):
        loop.retrain_policy.start("manual")


def test_run_without_a_model_is_rejected(loop_settings: Callable[..., Settings]) -> None:
    state = open_state(loop_settings())
    with pytest.raises(NoModel):
        state.retrain_policy.start("manual")
    state.close()


def test_concurrent_calls_start_one_run(loop: State) -> None:
    fill(loop)
    register_worker(loop)
    barrier, runs = threading.Barrier(4), list[Run | None]()

    def consider() -> None:
        barrier.wait()
        runs.append(loop.retrain_policy.consider())

    threads = [threading.Thread(target=consider) for _ in range(4)]
    with capture_logs() as entries:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    # For the others no run is due any more.
    assert not [entry for entry in entries if "cannot start" in entry["event"]]
    assert len([run for run in runs if run is not None]) == 1
    assert len(loop.runs.list()) == 1
