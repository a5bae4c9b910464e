"""A substitute for the Python of the trainer: runs `-m trainer` and `-m exporter` by their contract, in milliseconds.

It is a real program in a real process, so that it is started, read and stopped like the real ones. It reads its
behaviour from `behaviour.json` in its folder.
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
behaviour = json.loads((here / "behaviour.json").read_text())
arguments = sys.argv[1:]


def send(**event):
    print(json.dumps(event), flush=True)


def log(out, **event):
    # As the trainer: to its folder and to stdout.
    with (out / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\\n")
    send(**event)


def record(text):
    with (here / "history.txt").open("a") as file:
        file.write(f"{{text}} {{os.getpid()}}\\n")


def train(recipe, out, resume):
    out.mkdir(parents=True, exist_ok=True)
    saved = out / "resume.pt"
    if saved.exists() and not resume:
        send(event="error", message="an interrupted run exists: resume it")
        return 1
    stop_requests = []
    if behaviour.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: stop_requests.append(1))
    first = json.loads(saved.read_text())["step"] if resume else 0
    record(f"train from {{first}}")
    if behaviour.get("children"):
        record(f"child {{subprocess.Popen(['sleep', '600']).pid}}")
    print("a line for people", file=sys.stderr, flush=True)
    print("not an event", flush=True)
    environment = {{"python": "3", "device": "cpu"}}
    log(out, event="start", steps=behaviour["steps"], step=first, seed=0, environment=environment)
    for step in range(first + 1, behaviour["steps"] + 1):
        time.sleep(behaviour.get("step_s", 0.01))
        log(out, event="progress", step=step, steps=behaviour["steps"], loss=1 / step)
        if step == behaviour.get("hang_at"):
            record("hang")
            time.sleep(600)
        if step == behaviour.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == behaviour.get("fail_at"):
            send(event="error", message="the loss is not finite; lower the learning rate")
            return 1
        # Atomic, as in the trainer: a kill at this moment leaves the previous state.
        temporary = out / "resume.tmp"
        temporary.write_text(json.dumps({{"step": step}}))
        temporary.replace(saved)
        send(event="saved", step=step)
        if stop_requests:
            send(event="stopped", message="saved")
            return 75
    (out / "model.safetensors").write_bytes(b"weights")
    (out / "report.html").write_text("<!doctype html><style>p {{color: red}}</style><p>curves</p>")
    saved.unlink()
    log(out, event="evaluation", step=behaviour["steps"], miou=0.5, per_class={{}})
    send(event="done", checkpoint=str(out / "model.safetensors"), miou=0.5)
    return 0


def export(checkpoint, out):
    record("export")
    assert checkpoint.read_bytes() == b"weights"
    shutil.copytree(behaviour["candidate"], out)
    send(event="done", bundle=str(out), version="?")
    return 0


if arguments[0] == "-c":
    sys.exit(0 if behaviour.get("installed", True) else 1)
if arguments[:3] == ["-m", "trainer", "train"]:
    assert arguments[4] == "--out"
    sys.exit(train(Path(arguments[3]), Path(arguments[5]), "--resume" in arguments))
if arguments[:3] == ["-m", "exporter", "export"]:
    assert arguments[4] == "--out"
    sys.exit(export(Path(arguments[3]), Path(arguments[5])))
sys.exit(2)
"""


class Actor:
    """The program, its behaviour and its history."""

    def __init__(self, folder: Path, candidate: Path) -> None:
        folder.mkdir(parents=True)
        self.python = folder / "python"
        self.python.write_text(SOURCE.format(python=sys.executable))
        self.python.chmod(0o755)
        self._folder = folder
        self._behaviour: dict[str, Any] = {"steps": 5, "candidate": str(candidate)}
        self.behave()

    def behave(self, **changes: Any) -> None:
        """Change the behaviour, from the next start on."""
        self._behaviour |= changes
        (self._folder / "behaviour.json").write_text(json.dumps(self._behaviour))

    @property
    def history(self) -> list[str]:
        """The commands that it ran, without process ids: "train from 0", "export", ..."""
        return [line.rpartition(" ")[0] for line in self._lines()]

    def pids(self, command: str) -> list[int]:
        """Ids of the processes that ran a command, for example "train"; "child": of the children that it started."""
        lines = [line.split() for line in self._lines() if line.startswith(command)]
        return [int(words[1] if command == "child" else words[-1]) for words in lines]

    def _lines(self) -> list[str]:
        file = self._folder / "history.txt"
        return file.read_text().splitlines() if file.exists() else []


def alive(pid: int) -> bool:
    """Whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
