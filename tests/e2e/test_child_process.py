"""One child process of the supervisor."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

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


def poll_until(child: Child, condition: Callable[[], bool]) -> list[str]:
    """Poll until a condition is true; return the messages."""
    messages: list[str] = []

    def met() -> bool:
        message = child.poll()
        if message:
            messages.append(message)
        return condition()

    eventually(met)
    return messages


def test_restarts_of_an_essential_process_stop_after_the_maximum_of_crashes() -> None:
    child = Child(ProcessSpec(name="weak", command=KILLED, essential=True))
    child.start()
    messages = poll_until(child, lambda: child.failed_for_good)
    assert len(messages) == MAX_CRASHES
    assert messages[0] == "weak was killed by SIGKILL; it is restarted in 0.01 s"
    assert "not restarted, and `up` stops" in messages[-1]


def test_other_process_is_restarted_for_ever_and_the_message_says_what_does_not_work() -> None:
    child = Child(ProcessSpec(name="weak", command=KILLED, consequence="no training run starts"))
    child.start()
    messages = poll_until(child, lambda: child.crashes > MAX_CRASHES + 2)
    assert not child.failed_for_good
    assert messages[-1] == (
        "weak was killed by SIGKILL; it is restarted in 0.05 s (8 crashes in a row); until it stays up, no training "
        "run starts; see its output above for the reason"
    )
    child.stop(force=lambda: True)


@pytest.mark.parametrize("essential", [True, False])
def test_failing_first_start_is_repeated_unless_essential(capfd: pytest.CaptureFixture[str], essential: bool) -> None:
    command = [sys.executable, "-c", "raise SystemExit('bad setting')"]
    child = Child(ProcessSpec(name="wrong", command=command, essential=essential))
    child.start()
    messages = poll_until(child, lambda: child.failed_for_good or child.crashes == 2)
    assert len(messages) == (1 if essential else 2)
    assert messages[0].startswith("wrong ended with exit code 1; ")
    assert "wrong  | bad setting" in capfd.readouterr().err
    child.stop(force=lambda: True)


def test_restart_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(ProcessSpec(name="weak", command=KILLED))
    child.start()
    poll_until(child, lambda: child.crashes == 1)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "missing"))
        (message, *_) = poll_until(child, lambda: child.crashes == 2)
    assert message.startswith("weak cannot be started (")
    poll_until(child, lambda: child.crashes == 3)
    child.stop(force=lambda: True)


def test_callback_runs_at_each_start() -> None:
    starts: list[float] = []
    child = Child(ProcessSpec(name="weak", command=KILLED, essential=True), lambda: starts.append(time.monotonic()))
    child.start()
    poll_until(child, lambda: child.failed_for_good)
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
