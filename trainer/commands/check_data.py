"""`check-data DATASET`: check every image and mask and list problems with their remedies."""

import argparse
import json
from pathlib import Path

from rich.console import Console

from trainer.data.check import look_at
from trainer.data.check_report import as_dict, show
from trainer.data.findings import findings
from trainer.data.layouts import MARKS, open_dataset


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
    """Print the findings; returns 0 if the data set is usable, 1 if there is an error."""
    facts = look_at(open_dataset(options.dataset, options.format, options.splits))
    found = findings(facts, tuple(options.crop))
    if options.json:
        print(json.dumps(as_dict(facts, found)))
    else:
        show(facts, found, Console())
    return 1 if any(finding.severity == "error" for finding in found) else 0
