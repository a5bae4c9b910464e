"""The command line: each command is a module of trainer/commands."""

import argparse
import json
import sys

import torch

from trainer.checkpoint import CheckpointError
from trainer.commands import (
    check_data,
    evaluate_checkpoints,
    import_official,
    predict,
    prepare_coco,
    report,
    train_recipe,
)
from trainer.config import RecipeError
from trainer.data.dataset import DatasetError
from trainer.data.decode import ImageError
from trainer.models.encoders.encoder import EncoderError
from trainer.processes import is_main_process
from trainer.run_error import RunError
from trainer.taxonomy import TaxonomyError

COMMANDS = {
    "train": (train_recipe, "train a model from a recipe"),
    "evaluate": (evaluate_checkpoints, "score checkpoints on a labelled split"),
    "predict": (predict, "write masks and overlays of images"),
    "report": (report, "write a run's report.html again"),
    "check-data": (check_data, "check every image and mask of a data set"),
    "prepare-coco": (prepare_coco, "create the masks of COCO from its annotations"),
    "import-official": (import_official, "convert a checkpoint that the authors of UniMatch V2 published"),
}

USER_ERRORS = (CheckpointError, DatasetError, EncoderError, ImageError, RecipeError, RunError, TaxonomyError)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 success, 1 error, 75 stopped with the state saved."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except USER_ERRORS as error:
        return _fail(str(error))
    except torch.OutOfMemoryError as error:
        return _fail(f"{error}\nThe device has too little memory; use --device cpu, smaller images or a window")
    except Exception as error:
        # A bug: emit the error event for the reader of stdout, and show the traceback.
        _fail(f"{type(error).__name__}: {error}")
        raise


def _fail(message: str) -> int:
    # The event is for programs; a terminal shows the text.
    if is_main_process() and not sys.stdout.isatty():
        print(json.dumps({"event": "error", "message": message}), flush=True)
    print(f"error: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train semantic segmentation on a few labelled and many unlabelled images (UniMatch V2).",
        epilog="Start with python -m trainer check-data DATASET; then copy a recipe from trainer/recipes and train it.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (command, text) in COMMANDS.items():
        command_parser = commands.add_parser(name, help=text)
        command.add(command_parser)
        command_parser.set_defaults(command=command.run)
    return parser
