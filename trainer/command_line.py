"""The command line: each command is a module of trainer/commands, imported when it is chosen."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from errno import errorcode
from importlib import import_module
from importlib.util import find_spec

from trainer.main_process import is_main_process
from trainer.run_error import is_device_out_of_memory
from trainer.user_error import UserError

TRAINING = ("torch", "timm", "accelerate", "safetensors")


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its module in trainer/commands, what it does, and packages that it needs beside those of the base."""

    module: str
    text: str
    packages: tuple[str, ...] = TRAINING


CHECK = Command("check_data", "check every image and mask of a data set", ())
COMMANDS = {
    "train": Command("train_recipe", "train a model from a recipe"),
    "evaluate": Command("evaluate_checkpoints", "score checkpoints on a labelled split"),
    "predict": Command("predict", "write masks and overlays of images"),
    "report": Command("report", "write a run's report.html again"),
    "check": CHECK,
    "check-data": CHECK,
    "import": Command("import_dataset", "turn images and labels of another tool into a data set", ()),
    "export-labels": Command("export_labels", "write a data set's labels for another tool", ()),
    "prepare-coco": Command("prepare_coco", "create the masks of COCO from its annotations", ()),
    "import-official": Command("import_official", "convert a checkpoint that the authors of UniMatch V2 published"),
}


def main(arguments: Sequence[str] | None = None, prog: str = "python -m trainer") -> int:
    """Run one command and return its exit code: 0 success, 1 error, 75 stopped with the state saved.

    Args:
        arguments: those of the command line by default.
        prog: how help texts call the program, without the command.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    chosen = next((each for each in given if not each.startswith("-")), "")
    if (command := COMMANDS.get(chosen)) and (missing := [name for name in command.packages if not find_spec(name)]):
        sys.stderr.write(
            f"error: the trainer is not installed ({', '.join(missing)} missing): run `pip install "
            "'maskloop[trainer,exporter]'`, in a checkout `make trainer`\n"
        )
        return 1
    options = parser(chosen, prog).parse_args(given)
    try:
        return int(options.command(options))
    except UserError as error:
        return _fail(str(error), error.__cause__)
    except Exception as error:
        if is_device_out_of_memory(error):
            return _fail(f"{error}\nThe device has too little memory; use --device cpu, smaller images or a window")
        # A bug: emit the error event for the reader of stdout, and show the traceback.
        _fail(f"{type(error).__name__}: {error}")
        raise


def _fail(message: str, cause: BaseException | None = None) -> int:
    # The event is for programs; a terminal shows the text.
    if is_main_process() and not sys.stdout.isatty():
        reason = {"errno": errorcode.get(cause.errno or 0)} if isinstance(cause, OSError) else {}
        print(json.dumps({"event": "error", "message": message, **reason}), flush=True)
    print(f"error: {message}", file=sys.stderr)
    return 1


def parser(chosen: str, prog: str = "python -m trainer") -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of the chosen one: only its module is imported."""
    whole = argparse.ArgumentParser(
        prog=prog,
        description="Train semantic segmentation on a few labelled and many unlabelled images (UniMatch V2).",
        epilog=f"Start with {prog} check DATASET; then copy a recipe from trainer/recipes and train it.",
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command_parser = commands.add_parser(name, help=command.text)
        if name == chosen:
            module = import_module(f"trainer.commands.{command.module}")
            module.add(command_parser)
            command_parser.set_defaults(command=module.run, program=prog)
    return whole
