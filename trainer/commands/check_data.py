"""`check-data DATASET`: look at every image and mask, and say what is wrong."""

import argparse
from pathlib import Path

from trainer.data.check import check_dataset


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("dataset", type=Path, metavar="DATASET", help="a data set's folder")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print what was found; 0 when all is usable."""
    return check_dataset(options.dataset)
