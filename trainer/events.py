"""What a run says: one JSON object a line for programs, a progress bar for people, and curves for TensorBoard.

Programs read stdout (DESIGN: recipe in, JSON lines out); a person at a terminal gets a bar with the time left on
stderr. A run folder keeps the lines in events.jsonl and the curves in tensorboard/.
"""

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
    """Writes events to stdout and, when a run folder is given, into it."""

    def __init__(self, folder: Path | None = None, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._folder = folder
        self._curves: SummaryWriter | None = None
        self._file = _opened(folder / "events.jsonl") if folder else None
        self._bar = _bar() if sys.stderr.isatty() else None
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
        """Write `{"event": event, ...fields}` as one line, and flush: a reader must see it now."""
        line = json.dumps({"event": event, **fields})
        # Where both are one terminal, the bar says it already.
        shown = event != "progress" or self._bar is None or not self._stream.isatty()
        for sink in (self._stream if shown else None, self._file):
            if sink:
                sink.write(line + "\n")
                sink.flush()
        if self._folder and event == "start":
            # What a run that was killed drew beyond the state from which this one goes on is drawn anew.
            self._curves = SummaryWriter(str(self._folder / "tensorboard"), purge_step=fields["step"])
        if self._curves and "step" in fields:
            self._draw(self._curves, event, fields)

    def progress(self, step: int, steps: int, **fields: float) -> None:
        """Say how far the run is: `step` of `steps` done, with any figures of that step."""
        self.emit("progress", step=step, steps=steps, **fields)
        if self._bar and self._task is not None:
            text = "  ".join(f"{name} {value:.4g}" for name, value in fields.items())
            self._bar.update(self._task, completed=step, total=steps, description=text)

    def _draw(self, curves: SummaryWriter, event: str, fields: dict[str, Any]) -> None:
        """Every number of an event becomes a point: progress/loss, evaluation/miou, evaluation/per_class/road."""
        for name, value in _numbers(fields, event):
            curves.add_scalar(name, value, fields["step"])


class Silent(Events):
    """What the other processes of a run say: nothing, since the first one speaks for all."""

    def __init__(self) -> None:
        self._stream, self._file, self._bar, self._task, self._curves = sys.stdout, None, None, None, None

    def emit(self, event: str, **fields: Any) -> None:
        """Say nothing."""


def _opened(path: Path) -> TextIO:
    """The file, to be appended to; a half line that a killed run left is ended first."""
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    file = path.open("a", encoding="utf-8")
    if torn:
        file.write("\n")
    return file


def _numbers(table: dict[str, Any], path: str) -> Iterator[tuple[str, float]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}/{name}")
        elif isinstance(value, int | float) and name not in {"step", "steps"}:
            yield f"{path}/{name}", value


def _bar() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True))
