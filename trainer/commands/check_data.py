"""`check-data DATASET`: check every image and mask and list problems with their remedies."""

import argparse
import json
from pathlib import Path

from rich.console import Console

from trainer.data.inspection import inspect_dataset
from trainer.data.inspection_report import as_dict, show
from trainer.data.layouts import MARKS, open_dataset
from trainer.data.problems import find_problems


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("dataset", type=Path, metavar="DATASET", help="folder of the data set")
    command.add_argument(
        "--format", choices=("auto", *MARKS), default="auto", help="layout of the folder (default: auto)"
    )
    command.add_argument(
        "--splits", type=Path, metavar="DIR", help="folder of the split files (default: DATASET/splits)"
    )
    sizes = "height and width of the planned training crop, in pixels (default: 518 518)"
    command.add_argument("--crop", type=int, nargs=2, default=(518, 518), metavar=("H", "W"), help=sizes)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the problems; return 0 if the data set is usable, 1 if there is an error."""
    inspection = inspect_dataset(open_dataset(options.dataset, options.format, options.splits))
    problems = find_problems(inspection, tuple(options.crop))
    if options.json:
        print(json.dumps(as_dict(inspection, problems)))
    else:
        show(inspection, problems, Console())
    return 1 if any(problem.severity == "error" for problem in problems) else 0
