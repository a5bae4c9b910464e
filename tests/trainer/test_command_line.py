"""python -m trainer: what a terminal shows, and missing packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", [("trainer", "check-data"), ("exporter", "verify")])
def test_terminal_shows_an_error_once(command: tuple[str, str], tmp_path: Path) -> None:
    terminal, child_end = os.openpty()
    arguments = [sys.executable, "-m", *command, str(tmp_path / "none")]
    done = subprocess.run(arguments, stdout=child_end, stderr=child_end, timeout=120, check=False)
    os.close(child_end)
    shown = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert done.returncode == 1
    assert shown.startswith("error: ")
    assert shown.count("none") == 1


def test_missing_packages_are_an_error_with_a_remedy() -> None:
    # -S: without the packages of the environment.
    arguments = [sys.executable, "-S", "-m", "trainer", "train", "recipe.toml"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the trainer is not installed (torch, timm, ")
    assert "make trainer" in done.stderr
    assert done.stdout == ""
