"""`predict CHECKPOINT IMAGE... --out DIR`: masks and overlays of photographs."""

import argparse
from pathlib import Path

from trainer.checkpoint import load
from trainer.predict import predict


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's model.safetensors")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    folder = "where NAME.png (class ids, in colour) and NAME.overlay.jpg go"
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help=folder)
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write the files and print the masks' paths."""
    for path in predict(load(options.checkpoint), options.images, options.out):
        print(path)
    return 0
