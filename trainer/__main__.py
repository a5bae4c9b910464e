"""The command line: python -m trainer train | evaluate | predict | check-data | textures."""

import argparse
import json
import sys
from pathlib import Path

from trainer.checkpoint import CheckpointError, load
from trainer.config import RecipeError, load_recipe
from trainer.data.decode import ImageError
from trainer.data.folder import DatasetError, open_dataset
from trainer.data.textures import TexturesError
from trainer.evaluate import evaluate
from trainer.events import Events
from trainer.models.encoder import EncoderError
from trainer.predict import predict
from trainer.taxonomy import TaxonomyError
from trainer.train import RunError, Stopped, pick_device, train

STOPPED = 75
"""Exit code of a run that SIGTERM or Ctrl-C ended with its state saved (sysexits' EX_TEMPFAIL: try again)."""

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
        print(json.dumps({"event": "error", "message": str(error)}), flush=True)  # noqa: T201
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _train(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.set)
    out = options.out or Path("runs") / options.recipe.stem
    out.mkdir(parents=True, exist_ok=True)
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

    command = commands.add_parser(
        "train",
        help="train by a recipe",
        description="Train by a recipe. JSON lines on stdout, a progress bar on a terminal.",
    )
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file, such as trainer/recipes/camvid.toml")
    command.add_argument("--out", type=Path, metavar="RUN_DIR", help="run folder (default: runs/NAME of the recipe)")
    command.add_argument(
        "--set",
        action="append",
        metavar="A.B=VALUE",
        help="override a field, for example --set train.steps=100; may be repeated",
    )
    command.add_argument(
        "--resume", action="store_true", help="go on from the state that a stopped run left in RUN_DIR"
    )
    command.set_defaults(command=_train)

    command = commands.add_parser("evaluate", help="mIoU of a checkpoint on a labelled split")
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's model.safetensors")
    command.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DATASET",
        help="a data set folder: classes.toml, images/, masks/, splits/",
    )
    command.add_argument("--split", default="val", help="splits/NAME.txt (default: val)")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(command=_evaluate)

    command = commands.add_parser("predict", help="masks and overlays of photographs")
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="where NAME.png (class ids, in colour) and NAME.overlay.jpg go",
    )
    command.set_defaults(command=_predict)

    command = commands.add_parser(
        "check-data", help="look at every image and mask of a data set, and say what is wrong"
    )
    command.add_argument("dataset", type=Path, metavar="DATASET")
    command.set_defaults(command=_check_data)

    command = commands.add_parser("textures", help="make the demo's data set: mosaics of real textures")
    command.add_argument("out", type=Path, metavar="DATASET")
    for name, default in (("labelled", 6), ("unlabelled", 240), ("val", 60), ("size", 128), ("seed", 0)):
        command.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"default: {default}")
    command.set_defaults(command=_textures)
    return parser


if __name__ == "__main__":
    sys.exit(main())
