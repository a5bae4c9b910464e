"""The command line: python -m trainer train | evaluate | predict | check-data | textures."""

import argparse
import json
import sys
from pathlib import Path

import torch

from trainer.checkpoint import CheckpointError, load
from trainer.config import RecipeError, load_recipe
from trainer.data.decode import ImageError
from trainer.data.folder import DatasetError, open_dataset
from trainer.data.textures import TexturesError
from trainer.devices import pick_device
from trainer.evaluate import evaluate
from trainer.events import Events
from trainer.models.encoder import EncoderError
from trainer.predict import predict
from trainer.run import RunError
from trainer.taxonomy import TaxonomyError
from trainer.train import Stopped, train

STOPPED = 75
"""Exit code of a run that SIGTERM or Ctrl-C ended with its state saved (sysexits' EX_TEMPFAIL: try again)."""

DATASET = "a data set folder: classes.toml, images/, masks/, splits/"

USER_ERRORS = (
    CheckpointError,
    DatasetError,
    EncoderError,
    ImageError,
    RecipeError,
    RunError,
    TaxonomyError,
    TexturesError,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 error, 75 stopped with the state saved."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except USER_ERRORS as error:
        return _fail(str(error))
    except torch.OutOfMemoryError as error:
        return _fail(
            f"{error}\nThe device's memory is too small: lower train.batch_labelled, batch_unlabelled or data.crop"
        )
    except Exception as error:
        # A fault of ours: whoever reads the lines must learn of it, and a person gets the traceback.
        _fail(f"{type(error).__name__}: {error}")
        raise


def _fail(message: str) -> int:
    print(json.dumps({"event": "error", "message": message}), flush=True)  # noqa: T201
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return 1


def _train(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.set)
    out = options.out or Path("runs") / options.recipe.stem
    out.mkdir(parents=True, exist_ok=True)
    if (out / "model.safetensors").exists():
        raise RunError(f"{out}: holds a finished run; give another --out, or remove the folder to train it anew")
    if (out / "resume.pt").exists() and not options.resume:
        raise RunError(f"{out}: holds a run that was stopped; go on with --resume, or give another --out")
    with Events(out) as events:
        try:
            train(recipe, out, events, resume=options.resume)
        except Stopped as stopped:
            events.emit("stopped", message=str(stopped))
            return STOPPED
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    checkpoint = load(options.checkpoint)
    dataset = open_dataset(options.data)
    if dataset.taxonomy.names != checkpoint.taxonomy.names:
        raise DatasetError(
            f"{options.data}: its classes are not the checkpoint's: {', '.join(checkpoint.taxonomy.names)}"
        )
    long_side = checkpoint.recipe["inference"]["long_side"]
    found = evaluate(
        checkpoint.model.to(pick_device("auto")), dataset, dataset.split(options.split), long_side=long_side
    )
    if options.json:
        print(json.dumps(found.as_dict() | {"split": options.split}))  # noqa: T201
        return 0
    for name, iou in found.per_class.items():
        print(f"{name:24} {'absent' if iou is None else f'{iou:.4f}'}")  # noqa: T201
    print(f"{'mIoU':24} {found.miou:.4f}   ({found.images} images, pixel accuracy {found.pixel_accuracy:.4f})")  # noqa: T201
    return 0


def _predict(options: argparse.Namespace) -> int:
    for path in predict(load(options.checkpoint), options.images, options.out):
        print(path)  # noqa: T201
    return 0


def _check_data(options: argparse.Namespace) -> int:
    from trainer.data.check import check_dataset  # noqa: PLC0415

    return check_dataset(options.dataset)


def _textures(options: argparse.Namespace) -> int:
    from trainer.data.textures import make_textures  # noqa: PLC0415 (scikit-image is there for the demo only)

    make_textures(
        options.out,
        labelled=options.labelled,
        unlabelled=options.unlabelled,
        val=options.val,
        size=options.size,
        seed=options.seed,
    )
    print(options.out)  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train semantic segmentation on a few labelled and many unlabelled images (UniMatch V2).",
        epilog="Start with: python -m trainer check-data DATASET; then copy a recipe of trainer/recipes and train it.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train by a recipe"))
    _add_evaluate(commands.add_parser("evaluate", help="mIoU of a checkpoint on a labelled split"))
    _add_predict(commands.add_parser("predict", help="masks and overlays of photographs"))
    _add_check_data(commands.add_parser("check-data", help="look at every image and mask, and say what is wrong"))
    _add_textures(commands.add_parser("textures", help="make the demo's data set: mosaics of real textures"))
    return parser


def _add_train(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Train by a recipe. JSON lines on stdout, a progress bar on a terminal. Ctrl-C saves the state."
    )
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file, such as trainer/recipes/camvid.toml")
    command.add_argument("--out", type=Path, metavar="RUN_DIR", help="run folder (default: runs/NAME of the recipe)")
    override = "override a field, for example --set train.steps=100; may be repeated"
    command.add_argument("--set", action="append", metavar="A.B=VALUE", help=override)
    command.add_argument(
        "--resume", action="store_true", help="go on from the state that a stopped run left in RUN_DIR"
    )
    command.set_defaults(command=_train)


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's model.safetensors")
    command.add_argument("--data", type=Path, required=True, metavar="DATASET", help=DATASET)
    command.add_argument("--split", default="val", help="splits/NAME.txt (default: val)")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(command=_evaluate)


def _add_predict(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's model.safetensors")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    folder = "where NAME.png (class ids, in colour) and NAME.overlay.jpg go"
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help=folder)
    command.set_defaults(command=_predict)


def _add_check_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", type=Path, metavar="DATASET", help=DATASET)
    command.set_defaults(command=_check_data)


def _add_textures(command: argparse.ArgumentParser) -> None:
    command.add_argument("out", type=Path, metavar="DATASET", help="the folder to make")
    for name, default in (("labelled", 6), ("unlabelled", 240), ("val", 60), ("size", 128), ("seed", 0)):
        command.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"default: {default}")
    command.set_defaults(command=_textures)


if __name__ == "__main__":
    sys.exit(main())
