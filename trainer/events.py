"""What a run says: one JSON object a line for programs, a progress bar for people.

Programs read stdout (DESIGN: recipe in, JSON lines out); a person at a terminal gets a bar with the time left on
stderr.
"""

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Events:
    """Writes events to stdout and, when a run folder is given, to its events.jsonl."""

    def __init__(self, folder: Path | None = None, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._file = (folder / "events.jsonl").open("a", encoding="utf-8") if folder else None
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

    def emit(self, event: str, **fields: Any) -> None:
        """Write `{"event": event, ...fields}` as one line, and flush: a reader must see it now."""
        line = json.dumps({"event": event, **fields})
        # Where both are one terminal, the bar says it already.
        shown = event != "progress" or self._bar is None or not self._stream.isatty()
        for sink in (self._stream if shown else None, self._file):
            if sink:
                sink.write(line + "\n")
                sink.flush()

    def progress(self, step: int, steps: int, **fields: float) -> None:
        """Say how far the run is: `step` of `steps` done, with any figures of that step."""
        self.emit("progress", step=step, steps=steps, **fields)
        if self._bar and self._task is not None:
            text = "  ".join(f"{name} {value:.4g}" for name, value in fields.items())
            self._bar.update(self._task, completed=step, total=steps, description=text)


def _bar() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True))
