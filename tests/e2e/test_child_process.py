"""One child process of the supervisor."""

from __future__ import annotations

import os
import sys
import time

import pytest

from service import child_process as module
from service.child_process import MAX_CRASHES, Child, ProcessSpec
from tests.service.conftest import eventually
from tests.service.runs.actor import alive

KILLED = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
STUBBORN = "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(600)"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_BACKOFF_S", 0.01)
    monkeypatch.setattr(module, "MAX_BACKOFF_S", 0.05)


def poll_until_failed(child: Child) -> list[str]:
    """Poll until the child has failed for good; return the messages."""
    messages: list[str] = []

    def failed() -> bool:
        message = child.poll()
        if message:
            messages.append(message)
        return child.failed_for_good

    eventually(failed)
    return messages


def test_restarts_stop_after_the_maximum_of_crashes() -> None:
    child = Child(ProcessSpec(name="weak", command=KILLED))
    child.start()
    assert poll_until_failed(child) == ["weak was killed by SIGKILL"] * MAX_CRASHES


def test_failing_first_start_is_not_repeated(capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(ProcessSpec(name="wrong", command=[sys.executable, "-c", "raise SystemExit('bad setting')"]))
    child.start()
    assert poll_until_failed(child) == ["wrong ended with exit code 1"]
    assert "wrong  | bad setting" in capfd.readouterr().err


def test_callback_runs_at_each_start() -> None:
    starts: list[float] = []
    child = Child(ProcessSpec(name="weak", command=KILLED), on_start=lambda: starts.append(time.monotonic()))
    child.start()
    poll_until_failed(child)
    assert len(starts) == MAX_CRASHES


@pytest.mark.parametrize("force", [True, False])
def test_child_that_ignores_sigterm_is_killed(force: bool, capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(ProcessSpec(name="deaf", command=[sys.executable, "-c", STUBBORN], grace_s=600.0 if force else 0.3))
    child.start()
    said: list[str] = []

    def spoke() -> bool:
        said.append(capfd.readouterr().err)
        return "|" in "".join(said)

    eventually(spoke)
    pid = int("".join(said).split("|")[1])
    assert alive(pid)
    assert pid != os.getpid()
    child.stop(force=lambda: force)
    assert not alive(pid)
    child.stop(force=lambda: force)
