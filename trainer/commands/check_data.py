"""`check-data DATASET`: check every image and mask and list problems with their remedies."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from trainer.data.check.inspection import LABELLED_ROLES, Inspection, inspect_dataset
from trainer.data.check.problem_list import show_problems
from trainer.data.check.problems import Problem, find_problems
from trainer.data.dataset import DatasetError
from trainer.data.readers.layouts import MARKS, open_dataset

BAR_CELLS = 30


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("dataset", type=Path, metavar="DATASET", help="folder of the data set")
    layouts = ("auto", *MARKS)
    command.add_argument("--format", choices=layouts, default="auto", help="layout of the folder (default: auto)")
    splits = "folder of the split files (default: DATASET/splits)"
    command.add_argument("--splits", type=Path, metavar="DIR", help=splits)
    sizes = "height and width of the planned training crop, in pixels: report smaller images"
    command.add_argument("--crop", type=int, nargs=2, metavar=("H", "W"), help=sizes)
    values = "the recipe's data.range, if it declares one"
    command.add_argument("--range", type=float, nargs=2, metavar=("BLACK", "WHITE"), help=values)
    command.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print the problems; return 0 if the data set is usable, 1 if there is an error."""
    value_range = tuple(options.range) if options.range else None
    if value_range and not value_range[0] < value_range[1]:
        raise DatasetError(f"--range {value_range[0]:g} {value_range[1]:g}: the first value must be below the second")
    inspection = inspect_dataset(open_dataset(options.dataset, options.format, options.splits, value_range))
    problems = find_problems(inspection, tuple(options.crop) if options.crop else None)
    if options.json:
        print(json.dumps(as_dict(inspection, problems)))
    else:
        show(inspection, problems, Console())
    return 1 if any(problem.severity == "error" for problem in problems) else 0


def as_dict(inspection: Inspection, problems: list[Problem]) -> dict[str, Any]:
    """Everything as JSON values; shares are 0..1, sizes are [width, height] in pixels."""
    names = inspection.dataset.taxonomy.names
    shares = (_shares(inspection.class_counts(*LABELLED_ROLES)), _shares(inspection.class_counts("val")))
    return {
        "root": str(inspection.dataset.root),
        "ok": not any(problem.severity == "error" for problem in problems),
        "splits": {
            split.name: {
                "role": split.role,
                "images": len(split.samples),
                "labelled": sum(record.has_mask for record in inspection.records_of(split.samples)),
                "missing": len(split.missing),
            }
            for split in inspection.splits
        },
        "sizes": _sizes(inspection),
        "proposed_range": inspection.proposed_range,
        "classes": [
            {"name": name, "labelled": labelled, "val": val} for name, labelled, val in zip(names, *shares, strict=True)
        ],
        "findings": [dataclasses.asdict(problem) for problem in problems],
    }


def show(inspection: Inspection, problems: list[Problem], console: Console) -> None:
    """Print tables of splits, sizes and classes, then the problems."""
    summary = as_dict(inspection, problems)
    splits = [(name, str(split["images"]), str(split["labelled"])) for name, split in summary["splits"].items()]
    console.print(_table(("split", "images", "with masks"), splits))
    if summary["sizes"]:
        sizes = [(name, f"{width}x{height}") for name, (width, height) in summary["sizes"].items()]
        console.print(_table(("size", "width x height"), sizes))
    bar = "#" if console.options.ascii_only else "█"
    console.print(_table(("class", "of labelled", "of val", ""), _class_rows(summary, bar)))
    show_problems(problems, console)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None)
    for index, head in enumerate(heads):
        table.add_column(head, justify="left" if index in {0, 3} else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _class_rows(summary: dict[str, Any], bar: str) -> list[tuple[str, ...]]:
    most = max((entry["labelled"] for entry in summary["classes"]), default=0) or 1
    rows: list[tuple[str, ...]] = []
    for entry in summary["classes"]:
        name, labelled, val = entry.values()
        cells = max(round(labelled / most * BAR_CELLS), labelled > 0)
        rows.append((name, f"{labelled:.2%}", f"{val:.2%}", bar * cells))
    return rows


def _sizes(inspection: Inspection) -> dict[str, list[int]]:
    sizes = [record.size for record in inspection.records.values() if record.size]
    if not sizes:
        return {}
    statistics: dict[str, Any] = {"smallest": np.min, "median": np.median, "largest": np.max}
    return {name: [int(side) for side in of(sizes, axis=0)[::-1]] for name, of in statistics.items()}


def _shares(counts_K: npt.NDArray[np.int64]) -> list[float]:
    total = max(int(counts_K.sum()), 1)
    return [int(count) / total for count in counts_K]
