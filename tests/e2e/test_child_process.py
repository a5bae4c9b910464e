"""A child of the supervisor by itself."""

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
STUBBORN = "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(600)"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_BACKOFF_S", 0.05)


def news(child: Child) -> list[str]:
    """Look until it is hopeless; what there was to tell."""
    told: list[str] = []

    def hopeless() -> bool:
        word = child.look()
        if word:
            told.append(word)
        return child.hopeless

    eventually(hopeless)
    return told


def test_one_that_is_killed_again_and_again_is_given_up_at_last() -> None:
    child = Child(Spec(name="weak", command=KILLED))
    child.start()
    assert news(child) == ["weak was killed by SIGKILL"] * MOST_DEATHS


def test_one_whose_first_start_is_an_error_is_given_up_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(Spec(name="wrong", command=[sys.executable, "-c", "raise SystemExit('bad setting')"]))
    child.start()
    assert news(child) == ["wrong ended with exit code 1"]
    assert "wrong  | bad setting" in capfd.readouterr().err


def test_it_is_told_of_each_start() -> None:
    starts: list[float] = []
    child = Child(Spec(name="weak", command=KILLED), on_start=lambda: starts.append(time.monotonic()))
    child.start()
    news(child)
    assert len(starts) == MOST_DEATHS


@pytest.mark.parametrize("hurry", [True, False])
def test_one_that_does_not_listen_is_killed(hurry: bool, capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(Spec(name="deaf", command=[sys.executable, "-c", STUBBORN], grace_s=600.0 if hurry else 0.3))
    child.start()
    said: list[str] = []

    def spoke() -> bool:
        said.append(capfd.readouterr().err)
        return "|" in "".join(said)

    eventually(spoke)
    pid = int("".join(said).split("|")[1])
    assert alive(pid)
    assert pid != os.getpid()
    child.stop(hurry=lambda: hurry)
    assert not alive(pid)
    child.stop(hurry=lambda: hurry)
