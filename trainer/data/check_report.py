"""What `check-data` shows: tables and findings for people, one JSON object for programs."""

from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from trainer.data.check import TAUGHT, Facts
from trainer.data.findings import Finding

BAR_CELLS = 30
STYLES = {"error": "red", "warning": "yellow"}


def as_dict(facts: Facts, found: list[Finding]) -> dict[str, Any]:
    """Everything as plain values; shares are 0..1, sizes are [width, height] in pixels."""
    return {
        "root": str(facts.dataset.root),
        "ok": not any(finding.severity == "error" for finding in found),
        "splits": {
            split.name: {
                "role": split.role,
                "images": len(split.samples),
                "labelled": sum(looked.labelled for looked in facts.of(split.samples)),
                "missing": len(split.missing),
            }
            for split in facts.splits
        },
        "sizes": _sizes(facts),
        "classes": [
            {"name": name, "labelled": share, "val": val}
            for name, share, val in zip(
                facts.dataset.taxonomy.names, _shares(facts.counts(*TAUGHT)), _shares(facts.counts("val")), strict=True
            )
        ],
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "message": finding.message,
                "names": list(finding.names),
                "remedy": finding.remedy,
            }
            for finding in found
        ],
    }


def show(facts: Facts, found: list[Finding], console: Console) -> None:
    """Print it for a person."""
    summary = as_dict(facts, found)
    console.print(_table(("split", "images", "with masks"), _split_rows(summary)))
    if summary["sizes"]:
        rows: list[tuple[str, ...]] = [
            (name, f"{width}x{height}") for name, (width, height) in summary["sizes"].items()
        ]
        console.print(_table(("size", "width x height"), rows))
    ink = "#" if console.options.ascii_only else "█"
    console.print(_table(("class", "of labelled", "of val", ""), _class_rows(summary, ink)))
    for finding in found:
        _show_finding(finding, console)
    errors = sum(finding.severity == "error" for finding in found)
    console.print(f"errors: {errors}, warnings: {len(found) - errors}", style="red" if errors else "green")


def _show_finding(finding: Finding, console: Console) -> None:
    message = f"{finding.severity}: {finding.message}"
    console.print(message, style=STYLES[finding.severity], markup=False, highlight=False, soft_wrap=True)
    for name in finding.names:
        if name not in finding.message:
            console.print(f"    {name}", markup=False, highlight=False, soft_wrap=True)
    if finding.remedy:
        console.print(f"  {finding.remedy}", markup=False, highlight=False, soft_wrap=True)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None)
    for index, head in enumerate(heads):
        table.add_column(head, justify="left" if index in {0, 3} else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _split_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    return [(name, str(split["images"]), str(split["labelled"])) for name, split in summary["splits"].items()]


def _class_rows(summary: dict[str, Any], ink: str) -> list[tuple[str, ...]]:
    most = max((entry["labelled"] for entry in summary["classes"]), default=0) or 1
    return [
        (
            entry["name"],
            f"{entry['labelled']:.2%}",
            f"{entry['val']:.2%}",
            ink * max(round(entry["labelled"] / most * BAR_CELLS), entry["labelled"] > 0),
        )
        for entry in summary["classes"]
    ]


def _sizes(facts: Facts) -> dict[str, list[int]]:
    sizes = np.array([looked.size for looked in facts.looked.values() if looked.size], dtype=np.int64).reshape(-1, 2)
    if not len(sizes):
        return {}
    found = {"smallest": sizes.min(axis=0), "median": np.median(sizes, axis=0), "largest": sizes.max(axis=0)}
    return {name: [int(size[1]), int(size[0])] for name, size in found.items()}


def _shares(counts_K: npt.NDArray[np.int64]) -> list[float]:
    total = max(int(counts_K.sum()), 1)
    return [int(count) / total for count in counts_K]
