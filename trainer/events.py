"""Event log of a run: JSON lines on stdout, a progress bar on stderr; RUN/events.jsonl and RUN/tensorboard."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter


class Events:
    """Writes events to stdout and, if given, to a run folder."""

    def __init__(self, folder: Path | None = None, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._folder = folder
        self._curves: SummaryWriter | None = None
        self._file = _open_for_append(folder / "events.jsonl") if folder else None
        self._bar = _progress_bar() if sys.stderr.isatty() else None
        self._task = self._bar.add_task("", total=None) if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if self._file:
            self._file.close()
        if self._curves:
            self._curves.close()

    def emit(self, event: str, **fields: Any) -> None:
        """Write `{"event": event, ...fields}` as one line, and flush it."""
        line = json.dumps({"event": event, **fields})
        # If stdout and stderr are the same terminal, the bar already shows the progress.
        shown = event != "progress" or self._bar is None or not self._stream.isatty()
        for sink in (self._stream if shown else None, self._file):
            if sink:
                sink.write(line + "\n")
                sink.flush()
        if self._folder and event == "start":
            # A killed run may have logged steps after its last saved state; purge_step discards them.
            self._curves = SummaryWriter(str(self._folder / "tensorboard"), purge_step=fields["step"])
        if self._curves and "step" in fields:
            for name, value in _numbers(fields, event):
                self._curves.add_scalar(name, value, fields["step"])

    def progress(self, step: int, steps: int, *, seconds_per_step: float = 0.0, **fields: float) -> None:
        """Emit a `progress` event with the figures of a completed step; the time is for the progress bar only."""
        self.emit("progress", step=step, steps=steps, **fields)
        if self._bar and self._task is not None:
            text = "  ".join(f"{name} {value:.4g}" for name, value in fields.items())
            text = (f"{seconds_per_step:.3g} s a step  " if seconds_per_step else "") + text
            self._bar.update(self._task, completed=step, total=steps, description=text)


class NullEvents(Events):
    """Discards all events; for every process but the main one."""

    def __init__(self) -> None:
        self._stream, self._file, self._bar, self._task, self._curves = sys.stdout, None, None, None, None

    def emit(self, event: str, **fields: Any) -> None:
        """Discard the event."""


def _open_for_append(path: Path) -> TextIO:
    partial = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    file = path.open("a", encoding="utf-8")
    if partial:
        file.write("\n")
    return file


def _numbers(table: dict[str, Any], path: str) -> Iterator[tuple[str, float]]:
    """All numbers of nested tables by path, such as "evaluation/per_class/road"."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}/{name}")
        elif isinstance(value, int | float) and name not in {"step", "steps"}:
            yield f"{path}/{name}", value


def _progress_bar() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True))
