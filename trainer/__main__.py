"""The command line: python -m trainer COMMAND; one module of trainer/commands for each."""

import argparse
import json
import sys

import torch

from trainer.checkpoint import CheckpointError
from trainer.commands import (
    check_data,
    evaluate,
    import_official,
    predict,
    prepare_coco,
    report,
    train,
)
from trainer.config import RecipeError
from trainer.data.dataset import DatasetError
from trainer.data.decode import ImageError
from trainer.models.encoder import EncoderError
from trainer.processes import is_main
from trainer.run_error import RunError
from trainer.taxonomy import TaxonomyError

COMMANDS = {
    "train": (train, "train by a recipe"),
    "evaluate": (evaluate, "mIoU of a checkpoint on a labelled split"),
    "predict": (predict, "masks and overlays of photographs"),
    "report": (report, "write a run's report.html anew"),
    "check-data": (check_data, "look at every image and mask, and say what is wrong"),
    "prepare-coco": (prepare_coco, "make the masks of COCO from its JSON files"),
    "import-official": (import_official, "turn a checkpoint that the authors of UniMatch V2 published into ours"),
}

USER_ERRORS = (
    CheckpointError,
    DatasetError,
    EncoderError,
    ImageError,
    RecipeError,
    RunError,
    TaxonomyError,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 error, 75 stopped with the state saved."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except USER_ERRORS as error:
        return _fail(str(error))
    except torch.OutOfMemoryError as error:
        return _fail(f"{error}\nThe device's memory is too small: --device cpu, smaller images or a window")
    except Exception as error:
        # A fault of ours: whoever reads the lines must learn of it, and a person gets the traceback.
        _fail(f"{type(error).__name__}: {error}")
        raise


def _fail(message: str) -> int:
    if is_main():
        print(json.dumps({"event": "error", "message": message}), flush=True)
    print(f"error: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train semantic segmentation on a few labelled and many unlabelled images (UniMatch V2).",
        epilog="Start with: python -m trainer check-data DATASET; then copy a recipe of trainer/recipes and train it.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (command, text) in COMMANDS.items():
        command.add(commands.add_parser(name, help=text))
    return parser


if __name__ == "__main__":
    sys.exit(main())
