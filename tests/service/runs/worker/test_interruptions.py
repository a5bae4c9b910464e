"""A run that is cancelled, stopped, killed or hangs, with a substitute for the trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.runs.leases.attempts import MAX_ATTEMPTS
from service.runs.leases.lease import Lease, claim
from service.runs.worker.label_check import check_labels
from service.runs.worker.phases import Interrupted, Phases
from service.settings import Settings
from service.state import State
from service.storage.tables import Run
from tests.service.class_lists import TINY
from tests.service.conftest import eventually
from tests.service.runs.actor import Actor, alive
from tests.service.runs.conftest import (
    BAD,
    GOOD,
    SteppedClock,
    perform_run,
    reap_silent,
    write_dataset,
)
from tests.service.runs.worker.performing import Background, activations


def test_cancel_stops_the_trainer(loop: State, run: Run, actor: Actor) -> None:
    actor.behave(steps=10_000)
    background = Background(loop, run.id)
    eventually(lambda: loop.runs.get(run.id).step is not None)
    loop.runs.request_cancel(run.id)
    background.join()
    assert loop.runs.get(run.id).status == "cancelled"
    assert not alive(actor.pids("train")[0])
    folder = loop.settings.data_dir / "runs" / run.id
    assert {entry.name for entry in folder.iterdir()} == {"recipe.toml", "train", "log.txt"}
    assert (folder / "train" / "resume.pt").exists()
    desired = loop.models.activated()
    assert desired is not None
    assert desired.version == BAD


def test_stopping_worker_releases_the_run_and_the_next_attempt_resumes(loop: State, run: Run, actor: Actor) -> None:
    actor.behave(steps=10_000)
    background = Background(loop, run.id)
    eventually(lambda: (loop.runs.get(run.id).step or 0) > 1)
    background.stopping.set()
    background.join()
    row = loop.runs.get(run.id)
    assert (row.status, row.attempts) == ("queued", 0)
    saved = row.step or 0
    actor.behave(steps=saved + 50, step_s=0)
    assert perform_run(loop, run.id).status == "judged"
    first, second, _ = actor.history
    assert first == "train from 0"
    assert int(second.rpartition(" ")[2]) >= saved


def test_second_attempt_skips_finished_phases(loop: State, run: Run, actor: Actor) -> None:
    lease = claim(loop.database, run.id)
    assert lease is not None
    phases = Phases(
        settings=loop.settings,
        runs=loop.runs,
        images=loop.images,
        models=loop.models,
        releases=loop.releases,
        lease=lease,
        interruption=lambda: None,
    )
    phases.run()
    # The worker dies after the activation and before the run is marked as finished.
    with loop.database.write() as session:
        row = session.get(Run, run.id)
        assert row is not None
        row.status = "queued"
    done = perform_run(loop, run.id)
    assert (done.status, done.attempts) == ("judged", 2)
    assert actor.history == ["train from 0", "export"]
    assert activations(loop) == [BAD, GOOD]


def test_run_that_exceeds_its_timeout_is_stopped(
    loop: State, run: Run, actor: Actor, loop_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    actor.behave(steps=10_000)
    # The clock jumps past the timeout once the trainer runs, however slow the machine is.
    clock = SimpleNamespace(monotonic=lambda: 61.0 if actor.pids("train") else 0.0)
    monkeypatch.setattr("service.runs.worker.perform.time", clock)
    done = perform_run(loop, run.id, settings=loop_settings(run_timeout_s=60))
    assert done.status == "failed"
    assert "MASKLOOP_RUN_TIMEOUT_S" in (done.error or "")
    assert not alive(actor.pids("train")[0])


def test_killed_trainer_is_repeated_from_its_state(loop: State, run: Run, actor: Actor) -> None:
    actor.behave(die_at=3)
    row = perform_run(loop, run.id)
    assert (row.status, row.attempts, row.saved_step) == ("queued", 1, 2)
    event = loop.runs.events(run.id)[-1].event
    assert event["event"] == "interrupted"
    assert "was killed by SIGKILL" in event["reason"]
    actor.behave(die_at=0)
    assert perform_run(loop, run.id).status == "judged"
    assert actor.history == ["train from 0", "train from 2", "export"]


def test_trainer_that_is_killed_again_without_progress_fails_the_run_and_memory_is_named(
    loop: State, run: Run, actor: Actor
) -> None:
    actor.behave(die_at=3)
    assert [perform_run(loop, run.id).status for _ in range(MAX_ATTEMPTS)] == ["queued", "queued", "failed"]
    assert actor.history == ["train from 0", "train from 2", "train from 2"]
    error = loop.runs.get(run.id).error or ""
    assert error.startswith("3 attempts ended without progress; the last one: `-m trainer train` was killed by SIGKILL")
    assert "ran out of memory" in error
    assert "train.accumulate" in error


def test_hung_trainer_is_stopped_and_costs_an_attempt(
    loop: State, run: Run, actor: Actor, loop_settings: Callable[..., Settings]
) -> None:
    actor.behave(hang_at=2, ignore_sigterm=True)
    row = perform_run(loop, run.id, settings=loop_settings(stall_s=2, stop_grace_s=0.2))
    assert (row.status, row.attempts) == ("queued", 1)
    assert "MASKLOOP_STALL_S" in loop.runs.events(run.id)[-1].event["reason"]
    assert not any(alive(pid) for pid in actor.pids("train"))


def test_prepare_stops_between_images_when_the_run_is_cancelled(loop: State, run: Run) -> None:
    lease = claim(loop.database, run.id)
    assert lease is not None
    calls: list[int] = []

    def cancelled_at_the_fourth_image() -> str | None:
        calls.append(1)
        return "cancelled" if len(calls) > 4 else None

    with pytest.raises(Interrupted, match="cancelled"):
        phases_of(loop, lease, cancelled_at_the_fourth_image).run()
    assert len(calls) == 5
    assert not (loop.settings.data_dir / "runs" / run.id / "dataset").exists()


def phases_of(loop: State, lease: Lease, interruption: Callable[[], str | None]) -> Phases:
    return Phases(
        settings=loop.settings,
        runs=loop.runs,
        images=loop.images,
        models=loop.models,
        releases=loop.releases,
        lease=lease,
        interruption=interruption,
    )


def test_verdict_and_release_are_one_step_that_no_cancellation_divides(loop: State, run: Run) -> None:
    lease = claim(loop.database, run.id)
    assert lease is not None
    phases_of(loop, lease, lambda: "cancelled" if loop.releases.of_run(run.id) else None).run()
    release = loop.releases.of_run(run.id)
    assert release is not None
    assert (release.state, activations(loop)) == ("serving", [BAD, GOOD])


def test_label_check_stops_between_labels(loop: State, run: Run, tmp_path: Path) -> None:
    write_dataset(loop, run.id, tmp_path / "set")

    def stop() -> None:
        raise Interrupted("cancelled")

    with pytest.raises(Interrupted):
        check_labels(tmp_path / "set", TINY, stop)


def test_worker_that_lost_its_lease_stops_the_trainer(loop: State, run: Run, actor: Actor, clock: SteppedClock) -> None:
    actor.behave(steps=10_000)
    background = Background(loop, run.id)
    eventually(lambda: bool(actor.pids("train")))
    # As after a suspend of the machine: another worker has claimed the run.
    with loop.database.write() as session:
        row = session.get(Run, run.id)
        assert row is not None
        row.status = "queued"
    lease = claim(loop.database, run.id)
    assert lease is not None
    background.join()
    assert not alive(actor.pids("train")[0])
    assert loop.runs.get(run.id).status == "running"
    # The old worker no longer sends heartbeats for the run.
    assert reap_silent(loop, clock) == [run.id]
