"""Terminal output: a progress bar for each phase, or plain lines if stdout is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

# Without a terminal: progress lines per phase, and columns (rich would wrap the table at 80).
LINES_PER_PHASE = 4
COLUMNS = 120


class Report(Protocol):
    """Callback that receives the progress of a phase."""

    def __call__(self, step: int, steps: int, text: str = "") -> None:
        """`step` of `steps` are done; `text` is shown with it."""


class Terminal:
    """Prints phases, lines and tables, and measures durations of phases."""

    def __init__(self) -> None:
        self._console = Console() if Console().is_terminal else Console(width=COLUMNS)
        self.phase_seconds: dict[str, float] = {}
        """Duration by phase name, in the order of execution."""

    def print(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def phase(self, name: str) -> Iterator[Report]:
        """Show the progress of the block and measure its duration."""
        start = time.perf_counter()
        with self._progress_bar(name) if self._console.is_terminal else self._progress_lines(name) as report:
            yield report
        self.phase_seconds[name] = time.perf_counter() - start
        if not self._console.is_terminal:
            self.print(f"{name}: {self.phase_seconds[name]:.1f} s")

    def table(self, title: str, rows: dict[str, str]) -> None:
        """Print a table of names and values."""
        table = Table("", "", title=title, show_header=False, title_justify="left")
        for name, value in rows.items():
            table.add_row(name, value)
        self._console.print(table, highlight=False)

    @contextmanager
    def _progress_bar(self, name: str) -> Iterator[Report]:
        text = TextColumn("{task.description}", style="dim")
        # These take 70 of a terminal's 80 columns.
        columns = (SpinnerColumn(), TextColumn(f"{name:38}"), BarColumn(12), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, text, console=self._console) as progress:
            task = progress.add_task("", total=None)

            def report(step: int, steps: int, text: str = "") -> None:
                progress.update(task, completed=step, total=steps, description=text)

            yield report
            # A phase that reported nothing is shown as 1 of 1.
            total = progress.tasks[0].total or 1
            progress.update(task, total=total, completed=total)

    @contextmanager
    def _progress_lines(self, name: str) -> Iterator[Report]:
        self.print(f"{name} ...")
        printed = 0

        def report(step: int, steps: int, text: str = "") -> None:
            nonlocal printed
            due = LINES_PER_PHASE * step // max(steps, 1)
            if due > printed:
                printed = due
                self.print(f"  {step} of {steps}  {text}".rstrip())

        yield report
