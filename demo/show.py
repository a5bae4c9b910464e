"""What the person at the terminal sees: a bar for each phase; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

# Without a terminal, a line for each such part of a phase.
PARTS = 4
WIDTH = 120


class Report(Protocol):
    """How far a phase is."""

    def __call__(self, step: int, steps: int, text: str = "") -> None:
        """`step` of `steps` are done; `text` is what there is to say about it."""


class Show:
    """The phases of the demonstration, and how long each took."""

    def __init__(self) -> None:
        # In a log or a file nobody has to turn the lines of a table over.
        self._console = Console() if Console().is_terminal else Console(width=WIDTH)
        self.seconds: dict[str, float] = {}
        """By phase, in their order."""

    def say(self, text: str) -> None:
        """A line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def phase(self, name: str) -> Iterator[Report]:
        """Show and time a phase; the block tells how far it is."""
        begin = time.perf_counter()
        with self._bar(name) if self._console.is_terminal else self._lines(name) as report:
            yield report
        self.seconds[name] = time.perf_counter() - begin
        if not self._console.is_terminal:
            self.say(f"{name}: {self.seconds[name]:.1f} s")

    def table(self, title: str, rows: dict[str, str]) -> None:
        """Two columns: what, and how much."""
        table = Table("", "", title=title, show_header=False, title_justify="left")
        for name, value in rows.items():
            table.add_row(name, value)
        self._console.print(table, highlight=False)

    @contextmanager
    def _bar(self, name: str) -> Iterator[Report]:
        text = TextColumn("{task.description}", style="dim")
        # Together 70 of the 80 columns that a terminal has at least.
        columns = (SpinnerColumn(), TextColumn(f"{name:38}"), BarColumn(12), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, text, console=self._console) as progress:
            task = progress.add_task("", total=None)

            def report(step: int, steps: int, text: str = "") -> None:
                progress.update(task, completed=step, total=steps, description=text)

            yield report
            # A phase without steps is one step.
            progress.update(task, total=progress.tasks[0].total or 1, completed=progress.tasks[0].total or 1)

    @contextmanager
    def _lines(self, name: str) -> Iterator[Report]:
        self.say(f"{name} ...")
        said = 0

        def report(step: int, steps: int, text: str = "") -> None:
            nonlocal said
            part = PARTS * step // max(steps, 1)
            if part > said:
                said = part
                self.say(f"  {step} of {steps}  {text}".rstrip())

        yield report
