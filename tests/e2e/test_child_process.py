"""Start, restart and stop of one child process of the supervisor."""

from __future__ import annotations

import os
import sys
import time

import pytest

from service import child_process as module
from service.child_process import MOST_DEATHS, Child, Spec
from tests.service.conftest import eventually
from tests.service.runs.actor import alive

KILLED = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
IGNORES_SIGTERM = (
    "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(600)"
)


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_BACKOFF_S", 0.05)


def messages(child: Child) -> list[str]:
    """Poll the child until it is given up; return its messages."""
    found: list[str] = []

    def is_given_up() -> bool:
        message = child.look()
        if message:
            found.append(message)
        return child.hopeless

    eventually(is_given_up)
    return found


def test_child_that_dies_repeatedly_is_given_up() -> None:
    child = Child(Spec(name="weak", command=KILLED))
    child.start()
    assert messages(child) == ["weak was killed by SIGKILL"] * MOST_DEATHS


def test_child_whose_first_start_fails_is_given_up_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(Spec(name="wrong", command=[sys.executable, "-c", "raise SystemExit('bad setting')"]))
    child.start()
    assert messages(child) == ["wrong ended with exit code 1"]
    assert "wrong  | bad setting" in capfd.readouterr().err


def test_on_start_is_called_at_each_start() -> None:
    starts: list[float] = []
    child = Child(Spec(name="weak", command=KILLED), on_start=lambda: starts.append(time.monotonic()))
    child.start()
    messages(child)
    assert len(starts) == MOST_DEATHS


@pytest.mark.parametrize("hurry", [True, False])
def test_child_that_ignores_sigterm_is_killed(hurry: bool, capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(Spec(name="deaf", command=[sys.executable, "-c", IGNORES_SIGTERM], grace_s=600.0 if hurry else 0.3))
    child.start()
    output: list[str] = []

    def has_written() -> bool:
        output.append(capfd.readouterr().err)
        return "|" in "".join(output)

    eventually(has_written)
    pid = int("".join(output).split("|")[1])
    assert alive(pid)
    assert pid != os.getpid()
    child.stop(hurry=lambda: hurry)
    assert not alive(pid)
    child.stop(hurry=lambda: hurry)
