"""An executable that plays `python`: asked for `-m trainer` or `-m exporter` it speaks their contract, in no time.

It is a real program in a real process: what the loop does with it, it does with the real ones. How it behaves is read
from `behaviour.json` beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SOURCE = """#!{python}
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

here = Path(__file__).parent
how = json.loads((here / "behaviour.json").read_text())
arguments = sys.argv[1:]


def say(**event):
    print(json.dumps(event), flush=True)


def note(text):
    with (here / "history.txt").open("a") as file:
        file.write(f"{{text}} {{os.getpid()}}\\n")


def train(recipe, out, resume):
    out.mkdir(parents=True, exist_ok=True)
    saved = out / "resume.pt"
    if saved.exists() and not resume:
        say(event="error", message="it was stopped: resume")
        return 1
    asked = []
    if how.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    first = json.loads(saved.read_text())["step"] if resume else 0
    note(f"train from {{first}}")
    if how.get("children"):
        note(f"child {{subprocess.Popen(['sleep', '600']).pid}}")
    print("words for people", file=sys.stderr, flush=True)
    print("not an event", flush=True)
    say(event="start", steps=how["steps"], step=first)
    for step in range(first + 1, how["steps"] + 1):
        time.sleep(how.get("step_s", 0.01))
        say(event="progress", step=step, steps=how["steps"], loss=1 / step)
        if step == how.get("fail_at"):
            say(event="error", message="the loss is not finite; lower the learning rate")
            return 1
        # As the real one does it: a kill at this very moment leaves the state before.
        beside = out / "beside"
        beside.write_text(json.dumps({{"step": step}}))
        beside.replace(saved)
        if asked:
            say(event="stopped", message="saved")
            return 75
    (out / "model.safetensors").write_bytes(b"weights")
    saved.unlink()
    say(event="evaluation", step=how["steps"], miou=0.5, per_class={{}})
    say(event="done", checkpoint=str(out / "model.safetensors"), miou=0.5)
    return 0


def export(checkpoint, out):
    note("export")
    assert checkpoint.read_bytes() == b"weights"
    shutil.copytree(how["candidate"], out)
    say(event="done", bundle=str(out), version="?")
    return 0


if arguments[0] == "-c":
    sys.exit(0 if how.get("installed", True) else 1)
if arguments[:3] == ["-m", "trainer", "train"]:
    assert arguments[4] == "--out"
    sys.exit(train(Path(arguments[3]), Path(arguments[5]), "--resume" in arguments))
if arguments[:3] == ["-m", "exporter", "export"]:
    assert arguments[4] == "--out"
    sys.exit(export(Path(arguments[3]), Path(arguments[5])))
sys.exit(2)
"""


class Actor:
    """The program and its behaviour."""

    def __init__(self, folder: Path, candidate: Path) -> None:
        folder.mkdir(parents=True)
        self.python = folder / "python"
        self.python.write_text(SOURCE.format(python=sys.executable))
        self.python.chmod(0o755)
        self._folder = folder
        self._how: dict[str, Any] = {"steps": 5, "candidate": str(candidate)}
        self.behave()

    def behave(self, **changes: Any) -> None:
        """Behave otherwise from the next start on."""
        self._how |= changes
        (self._folder / "behaviour.json").write_text(json.dumps(self._how))

    @property
    def history(self) -> list[str]:
        """What was asked of it, without the process ids: "train from 0", "export", ..."""
        return [line.rpartition(" ")[0] for line in self._lines()]

    def pids(self, what: str) -> list[int]:
        """The processes that did something, for example "train"; for "child" the children that it left running."""
        lines = [line.split() for line in self._lines() if line.startswith(what)]
        return [int(words[1] if what == "child" else words[-1]) for words in lines]

    def _lines(self) -> list[str]:
        file = self._folder / "history.txt"
        return file.read_text().splitlines() if file.exists() else []


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
