"""Attempts of a run by real processes that are killed, stopped and continued."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from service.process_identity import end_group, has_ended, process_identity
from service.runs.leases.attempts import MAX_ATTEMPTS
from service.runs.leases.reaper import reap
from service.runs.worker.attempt_folder import open_attempt
from service.state import State
from service.storage.tables import Run
from tests.service.conftest import eventually
from tests.service.runs.actor import Actor, alive
from tests.service.runs.conftest import GOOD, SteppedClock, fill, perform_run, reap_silent, register_worker

PERFORM = """
import sys, threading
from service.runs.worker.perform import perform
from service.settings import Settings
from service.state import open_state
s = open_state(Settings())
perform(sys.argv[1], threading.Event(), settings=s.settings, database=s.database, images=s.images, models=s.models)
"""

Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def run(loop: State) -> Run:
    fill(loop)
    register_worker(loop)
    return loop.retrain_policy.start("manual")


@pytest.fixture
def start(loop: State, run: Run) -> Iterator[Start]:
    """Return a function that starts a process which performs the run."""
    given = loop.settings.model_dump(mode="json", exclude_defaults=True, exclude={"api_key"})
    environment = os.environ | {f"MASKLOOP_{name.upper()}": str(value) for name, value in given.items()}
    processes: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen([sys.executable, "-c", PERFORM, run.id], env=environment))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def stop_outside_a_transaction(process: subprocess.Popen[bytes], state: State) -> None:
    """Send SIGSTOP at a moment at which the process locks nothing in the database."""

    def stopped() -> bool:
        process.send_signal(signal.SIGSTOP)
        if locked(state):
            process.send_signal(signal.SIGCONT)
            return False
        return True

    eventually(stopped)


def locked(state: State) -> bool:
    """Whether a process is within a write transaction of a run."""
    if state.database.engine.dialect.name == "postgresql":
        try:
            with state.database.read() as session:
                session.scalars(select(Run).with_for_update(nowait=True)).all()
        except DBAPIError:
            return True
        return False
    database = sqlite3.connect(state.settings.data_dir / "maskloop.db", timeout=0)
    try:
        database.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    finally:
        database.close()
    return False


def test_any_number_of_power_cuts_with_progress_between_them_does_not_fail_a_run(
    loop: State, run: Run, actor: Actor, start: Start
) -> None:
    actor.behave(steps=10_000)
    for cut in range(MAX_ATTEMPTS + 1):
        saved = loop.runs.get(run.id).saved_step
        process = start()
        eventually(lambda saved=saved: loop.runs.get(run.id).saved_step > saved)  # type: ignore[misc]
        process.kill()
        process.wait()
        # The worker's process has ended on this machine: no silence is waited for.
        assert reap(loop.database, loop.liveness) == [run.id]
        assert (loop.runs.get(run.id).attempts, loop.runs.get(run.id).fence) == (1, cut + 1)
    actor.behave(steps=loop.runs.get(run.id).saved_step + 200, step_s=0)
    assert perform_run(loop, run.id).status == "judged"
    trained_from = [int(line.rpartition(" ")[2]) for line in actor.history if line.startswith("train")]
    assert trained_from == sorted(set(trained_from))


@pytest.mark.parametrize("local", [True, False])
def test_hung_worker_and_its_trainer_cannot_disturb_the_next_attempt(
    loop: State, actor: Actor, start: Start, clock: SteppedClock, local: bool
) -> None:
    (run,) = loop.runs.list()
    actor.behave(steps=10_000, step_s=0.05)
    hung = start()
    eventually(lambda: loop.runs.get(run.id).saved_step > 2)
    stop_outside_a_transaction(hung, loop)
    (old_trainer,) = actor.pids("train")
    assert reap_silent(loop, clock) == [run.id]
    assert alive(old_trainer)
    if not local:
        # Another machine's process cannot be ended from here.
        with loop.database.write() as session:
            session.get_one(Run, run.id).program = "other-boot pid:[1] 1 1"
    actor.behave(steps=loop.runs.get(run.id).saved_step + 100)
    thread = threading.Thread(target=perform_run, args=(loop, run.id))
    with capture_logs() as entries:
        thread.start()
        eventually(lambda: len(actor.pids("train")) == 2)
        eventually(lambda: not alive(old_trainer))
        hung.send_signal(signal.SIGCONT)
        assert hung.wait(60) == 0
        thread.join(60)
    assert local == any(entry["event"] == "ended the program of an earlier attempt" for entry in entries)
    row = loop.runs.get(run.id)
    assert (row.status, row.fence, row.candidate_version) == ("judged", 2, GOOD)
    _, second, _ = actor.history
    assert int(second.rpartition(" ")[2]) > 2
    folder = loop.settings.data_dir / "runs" / run.id
    assert {entry.name for entry in folder.iterdir()} == {"recipe.toml", "train", "log.txt"}
    assert [e.event["status"] for e in loop.runs.events(run.id, limit=10_000) if e.event["event"] == "finished"] == [
        "judged"
    ]


def test_attempt_takes_over_the_files_of_the_last_one_and_no_temporary_ones(tmp_path: Path) -> None:
    for fence in (2, 10):
        train = tmp_path / f"attempt-{fence}" / "train"
        train.mkdir(parents=True)
        (train / "resume.pt").write_text(str(fence))
        (train / ".resume.pt.tmp").touch()
        (train.parent / ".bundle.partial").mkdir()
    own = open_attempt(tmp_path, 11)
    assert [entry.name for entry in tmp_path.iterdir()] == ["attempt-11"]
    assert [(entry.name, entry.read_text()) for entry in own.rglob("*") if entry.is_file()] == [("resume.pt", "10")]
    assert [entry.name for entry in own.iterdir()] == ["train"]
    # A worker that was presumed dead takes nothing from its successor.
    late = open_attempt(tmp_path, 10)
    assert list(late.iterdir()) == []
    assert (own / "train" / "resume.pt").exists()


def test_end_group_ends_children_and_stopped_processes() -> None:
    script = "trap '' TERM; sleep 600 & echo $!; while :; do sleep 0.1; done"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        identity = process_identity(process.pid)
        process.send_signal(signal.SIGSTOP)
        assert end_group(identity, 0.1)
        assert process.wait(10) == -signal.SIGKILL
        eventually(lambda: not alive(child))
    assert has_ended(identity)
    assert not end_group(identity, 0.1)


def test_nothing_is_known_about_processes_of_other_machines() -> None:
    for identity in (None, "other-boot pid:[1] 1 1"):
        assert not has_ended(identity)
        assert not end_group(identity, 0.1)
