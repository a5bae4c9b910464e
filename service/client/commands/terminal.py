"""What commands print: JSON for programs, tables and progress bars for people."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

# A file or a pipe has no terminal width.
PIPE_COLUMNS = 200
EXAMPLES = 3
"""Names that a group of failures shows."""


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """Print a line for people, on standard error."""
    sys.stderr.write(f"{text}\n")


def say(text: str) -> None:
    """Print a line of the result."""
    sys.stdout.write(f"{text}\n")


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; None is shown as a dash. The first column, which is copied, is never cut or folded."""
    from rich.console import Console  # noqa: PLC0415 - slow, and JSON does not need it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    cells = [[cell_text(cell) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False)
    table.add_column(heads[0], no_wrap=True, min_width=max(len(row[0]) for row in [heads, *cells]))
    for head in heads[1:]:
        table.add_column(head, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


def cell_text(value: object) -> str:
    """Format a value for people: local time, three digits of a fraction."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value.astimezone():%Y-%m-%d %H:%M}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def print_failures(failures: Iterable[tuple[str, str]]) -> None:
    """Print names and reasons, equal reasons once with their number and a few names, on standard error."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, reason in failures:
        names[reason].append(name)
    for reason, found in names.items():
        more = f" and {len(found) - EXAMPLES} more" if len(found) > EXAMPLES else ""
        note(f"{len(found)} failed: {reason}\n    {', '.join(found[:EXAMPLES])}{more}")


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield a progress display with the time left, on standard error; it shows nothing unless that is a terminal."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress
