"""Faults of the sweep: each step is tried, and each fault is logged when it begins."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from service.errors import StorageFailed
from service.state import State
from service.storage.tables import Worker
from service.worker import sweeper
from service.worker.background_thread import background_thread
from service.worker.fault_log import FaultLog
from service.worker.sweeper import sweep, sweep_periodically
from tests.service.conftest import blob_file, eventually
from tests.service.runs.conftest import fill, register_worker


def test_step_that_fails_does_not_prevent_the_others(loop: State, on_files: None) -> None:
    ids = fill(loop, unlabelled=4)
    loop.images.delete(ids[-1])
    # A folder cannot be deleted as a file: the deletion stays incomplete.
    broken = blob_file(loop, "images", ids[-1])
    (broken / "inside").mkdir(parents=True)
    register_worker(loop)
    with pytest.raises(ExceptionGroup) as failed:
        sweep(loop)
    assert [type(error) for error in failed.value.exceptions] in ([IsADirectoryError], [PermissionError])
    assert [run.reason for run in loop.runs.list()] == ["images"]
    shutil.rmtree(broken)
    sweep(loop)


def test_fault_is_logged_when_it_begins_and_when_it_begins_again(tmp_path: Path) -> None:
    faults = FaultLog("sweep", tmp_path)
    store, bug = StorageFailed("The object store does not answer"), KeyError("bug")
    with capture_logs() as logs:
        faults.report(store)
        faults.report(store, bug, store)
        faults.report(bug)
        faults.report()
        faults.report(store)
    assert [entry["log_level"] for entry in logs] == ["warning", "error", "warning"]
    assert [entry["exc_info"] for entry in logs if "exc_info" in entry] == [bug]


def test_heartbeats_continue_while_a_step_waits(loop: State, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(sweeper, "STEPS", (lambda _: waiting.wait(60),))

    def beats() -> int:
        with loop.database.read() as session:
            return max(session.scalars(select(Worker.beats)), default=0)

    with background_thread("sweeper", partial(sweep_periodically, loop)):
        eventually(lambda: beats() > 3)
        waiting.set()
    assert beats() == 0, "the row was deleted at the end"
