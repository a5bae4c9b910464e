"""Child programs: their events, how they are stopped, and that no process remains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from service.parent_watch import killed_with_parent
from service.runs.worker.child_program import Event, Program, ProgramDiedError, ProgramError, run_program
from tests.service.conftest import eventually
from tests.service.runs.actor import Actor, alive


def program(actor: Actor, tmp_path: Path, *, events: list[Event] | None = None, **changes: Any) -> Program:
    recipe = tmp_path / "recipe.toml"
    defaults: dict[str, Any] = {
        "command": [str(actor.python), "-m", "trainer", "train", str(recipe), "--out", str(tmp_path / "out")],
        "log_file": tmp_path / "log.txt",
        "on_event": (events if events is not None else []).append,
        "interruption": lambda: None,
        "grace_s": 5.0,
        "stall_s": 600.0,
    }
    return Program(**(defaults | changes))


def test_events_arrive_in_order_and_stderr_is_logged(actor: Actor, tmp_path: Path) -> None:
    events: list[Event] = []
    done = run_program(program(actor, tmp_path, events=events))
    assert done is not None
    assert done["checkpoint"].endswith("model.safetensors")
    assert [e["event"] for e in events] == ["start", *["progress", "saved"] * 5, "evaluation", "done"]
    log = (tmp_path / "log.txt").read_text()
    assert log.startswith(f"$ {actor.python} -m trainer train")
    assert "a line for people" in log


def test_error_contains_the_message_of_the_program_and_the_end_of_its_log(actor: Actor, tmp_path: Path) -> None:
    actor.behave(fail_at=2)
    with pytest.raises(ProgramError, match=r"(?s)lower the learning rate.*a line for people"):
        run_program(program(actor, tmp_path))


def test_missing_program_and_exit_without_a_result_are_errors(actor: Actor, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="exit code"):
        run_program(program(actor, tmp_path, command=["/no/such/program"]))
    with pytest.raises(ProgramError, match="exit code 0"):
        run_program(program(actor, tmp_path, command=[sys.executable, "-c", "pass"]))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -KILL $$", "was killed by SIGKILL; most likely the system ran out of memory"),
        ("exit 137", "was killed by SIGKILL; most likely the system ran out of memory"),
        ("kill -SEGV $$", r"was killed by SIGSEGV\.\n"),
        ("exit 75", "was stopped by a signal that this service did not send"),
    ],
)
def test_program_that_a_signal_ends_has_died(actor: Actor, tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(ProgramDiedError, match=message):
        run_program(program(actor, tmp_path, command=["sh", "-c", script]))


def test_program_without_events_is_hung_and_one_with_events_is_not(actor: Actor, tmp_path: Path) -> None:
    with pytest.raises(ProgramDiedError, match=r"no event for \d s and was stopped: .* raise MASKLOOP_STALL_S"):
        run_program(program(actor, tmp_path, command=["sh", "-c", "while echo text; do sleep 0.1; done"], stall_s=0.5))
    loop = """for i in 1 2 3 4 5 6; do echo '{"event": "progress"}'; sleep 0.5; done; echo '{"event": "done"}'"""
    assert run_program(program(actor, tmp_path, command=["sh", "-c", loop], stall_s=2.0)) == {"event": "done"}


def test_signal_to_program_and_worker_at_once_is_an_interruption(actor: Actor, tmp_path: Path) -> None:
    """As a process manager sends it: the program may end before the worker has seen its own signal."""
    started: list[int] = []

    def stopping() -> str | None:
        return "stopping" if started and not alive(started[0]) else None

    command = ["sh", "-c", "exit 75"]
    stopped = program(actor, tmp_path, command=command, on_start=started.append, interruption=stopping)
    assert run_program(stopped) is None


def test_interrupted_program_saves_its_state_and_ends_with_its_children(actor: Actor, tmp_path: Path) -> None:
    actor.behave(steps=10_000, children=True)
    assert (
        run_program(program(actor, tmp_path, interruption=lambda: "stopping" if actor.pids("child") else None)) is None
    )
    assert (tmp_path / "out" / "resume.pt").exists()
    assert not alive(actor.pids("train")[0])
    assert not alive(actor.pids("child")[0])


def test_program_that_ignores_sigterm_is_killed_after_the_grace_period(actor: Actor, tmp_path: Path) -> None:
    actor.behave(steps=10_000, ignore_sigterm=True)
    stopped_at = list[float]()

    def stop() -> str | None:
        if not actor.pids("train"):
            return None
        stopped_at.append(time.monotonic())
        return "cancelled"

    assert run_program(program(actor, tmp_path, interruption=stop, grace_s=0.3)) is None
    assert 0.3 <= time.monotonic() - stopped_at[0] < 30
    assert not alive(actor.pids("train")[0])


STARTER = """
import subprocess, sys, time
from service.parent_watch import killed_with_parent
child = subprocess.Popen(killed_with_parent(sys.argv[1:]), start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_program_is_killed_when_its_parent_is_killed() -> None:
    sleeper = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    with subprocess.Popen([sys.executable, "-c", STARTER, *sleeper], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        # Wait until the script has replaced itself by the program.
        eventually(lambda: b"parent_watch" not in Path(f"/proc/{pid}/cmdline").read_bytes())
        assert alive(pid)
        starter.kill()
    eventually(lambda: not alive(pid))


def test_nothing_starts_if_the_parent_died_before(tmp_path: Path) -> None:
    command = killed_with_parent(["touch", str(tmp_path / "started")])
    # No process has the id 0.
    orphaned = [word if word != str(os.getpid()) else "0" for word in command]
    assert subprocess.run(orphaned, check=False).returncode != 0
    assert not (tmp_path / "started").exists()


WATCHED = """
import os, subprocess, sys
from service.parent_watch import run_and_poll
os.setsid()
sys.exit(run_and_poll(int(sys.argv[1]), sys.argv[2:]))
"""


def test_polling_kills_the_program_when_the_parent_dies(tmp_path: Path) -> None:
    """For systems without prctl; it works on Linux too."""
    parent = subprocess.Popen([sys.executable, "-c", STARTER_OF_WATCHER, WATCHED], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    eventually(lambda: not alive(pid))
    parent.stdout.close()
    ended = [sys.executable, "-c", WATCHED, str(os.getpid()), sys.executable, "-c", "raise SystemExit(75)"]
    assert subprocess.run(ended, check=False).returncode == 75


STARTER_OF_WATCHER = """
import os, subprocess, sys
program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
command = [sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.executable, "-c", program]
subprocess.Popen(command).wait()
"""
