"""`textures DATASET`: make the demo's data set."""

import argparse
from pathlib import Path


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("out", type=Path, metavar="DATASET", help="the folder to make")
    for name, default in (("labelled", 6), ("unlabelled", 240), ("val", 60), ("size", 128), ("seed", 0)):
        command.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"default: {default}")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write the data set and print its folder."""
    from trainer.data.textures import make_textures  # noqa: PLC0415 (scikit-image is there for the demo only)

    make_textures(
        options.out,
        labelled=options.labelled,
        unlabelled=options.unlabelled,
        val=options.val,
        size=options.size,
        seed=options.seed,
    )
    print(options.out)
    return 0
