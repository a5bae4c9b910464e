"""`import-official CKPT`: convert a checkpoint that the authors of UniMatch V2 published."""

import argparse
from pathlib import Path

from trainer.official_checkpoint import PUBLISHED, import_official


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = (
        "Convert a checkpoint of the authors' code to one that can be evaluated, exported and served here, without "
        "training."
    )
    command.add_argument("file", type=Path, metavar="CKPT", help="the authors' file, such as best.pth")
    kind = command.add_mutually_exclusive_group(required=True)
    kind.add_argument("--dataset", choices=list(PUBLISHED), default="", help="the data set of its training")
    kind.add_argument("--classes", type=Path, metavar="TOML", help="for other data: a classes.toml")
    text = "the teacher's weights, which the paper reports (default), or the student's"
    command.add_argument("--weights", choices=["ema", "student"], default="ema", help=text)
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="such as model.safetensors")


def run(options: argparse.Namespace) -> int:
    """Convert the file and print what it contains."""
    segmenter = import_official(
        options.file, options.out, dataset=options.dataset, classes=options.classes, weights=options.weights
    )
    millions = sum(parameter.numel() for parameter in segmenter.parameters()) / 1e6
    print(f"{options.out}: {segmenter.classes} classes, {millions:.1f} M parameters, {options.weights} weights")
    print(f"Next: maskloop evaluate {options.out} --data DATASET, maskloop export {options.out}")
    return 0
