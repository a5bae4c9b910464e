"""Subprocesses of the demonstration: events, errors, and their end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo import DemoError
from demo.programs import run_module
from tests.service.conftest import eventually


@pytest.fixture
def module_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules `python -m` finds."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def test_progress_is_reported_and_the_done_event_returned(module_folder: Path, tmp_path: Path) -> None:
    (module_folder / "program_ok.py").write_text(
        "print('no event')\n"
        'print(\'{"event": "progress", "step": 1, "steps": 2, "loss": 0.5}\')\n'
        'print(\'{"event": "done", "miou": 0.25}\')\n'
    )
    reports = []
    done = run_module(
        "program_ok", "train", log_file=tmp_path / "log", report=lambda *report: reports.append((*report,))
    )
    assert done == {"event": "done", "miou": 0.25}
    assert reports == [(1, 2, "loss 0.500")]


def test_error_contains_exit_code_and_message_of_the_program(module_folder: Path, tmp_path: Path) -> None:
    (module_folder / "program_bad.py").write_text(
        'import sys\nprint(\'{"event": "error", "message": "out of disk"}\')\nsys.exit(3)\n'
    )
    with pytest.raises(DemoError, match=r"program_bad train` failed with exit code 3: out of disk; see .*log"):
        run_module("program_bad", "train", log_file=tmp_path / "log", report=lambda *_: None)


def test_missing_done_event_is_an_error(module_folder: Path, tmp_path: Path) -> None:
    (module_folder / "program_silent.py").write_text("")
    with pytest.raises(DemoError, match="exit code 0: it printed no error event"):
        run_module("program_silent", "train", log_file=tmp_path / "log", report=lambda *_: None)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
def test_program_dies_if_the_demo_is_killed(module_folder: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    (module_folder / "program_slow.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    script = (
        "import pathlib, sys; from demo.programs import run_module; "
        "run_module('program_slow', 'train', log_file=pathlib.Path(sys.argv[1]), report=print)"
    )
    demo = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "log")])
    eventually(lambda: pid_file.exists() and pid_file.read_text() != "")
    demo.kill()
    demo.wait()
    # A zombie has an empty command line.
    command_line = Path(f"/proc/{pid_file.read_text()}/cmdline")
    eventually(lambda: not command_line.exists() or command_line.read_bytes() == b"")
