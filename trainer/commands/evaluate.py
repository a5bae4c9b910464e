"""`evaluate CHECKPOINT... --data DATASET`: how good checkpoints are on a labelled split."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from trainer.checkpoint import Checkpoint, CheckpointError, load
from trainer.config import Inference
from trainer.data.dataset import DatasetError
from trainer.data.layouts import open_dataset
from trainer.devices import pick_device
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.metrics import Scores
from trainer.recipe_file import recipe_from_dict

BAR = 10
"""Characters of a full bar."""


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = (
        "Measure checkpoints on a labelled split: mIoU, pixel accuracy, boundary IoU and calibration error. Several "
        "checkpoints, or a run folder with its best, last and student weights, stand side by side."
    )
    command.add_argument(
        "checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="a run's model.safetensors, or its folder"
    )
    command.add_argument("--data", type=Path, required=True, metavar="DATASET", help="a data set's folder")
    command.add_argument("--split", default="val", help="splits/NAME.txt (default: val)")
    command.add_argument("--format", default="auto", help="the folder's layout, as the recipe's data.format")
    command.add_argument(
        "--splits", type=Path, metavar="DIR", help="folder of the split files (default: DATASET/splits)"
    )
    command.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON, to standard output without a FILE"
    )
    command.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode (default: 0)")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    rule = command.add_mutually_exclusive_group()
    rule.add_argument("--whole", action="store_true", help="predict whole images, whatever the recipe says")
    rule.add_argument("--window", type=_window, metavar="HxW", help="predict by a sliding window of so many pixels")
    command.add_argument(
        "--long-side", type=int, metavar="PIXELS", help="resize the image's long side for the network; 0 = do not"
    )
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the scores."""
    paths = [path for given in options.checkpoints for path in checkpoint_files(given)]
    found = {str(path): _measure(path, options) for path in paths}
    if options.json:
        _write_json(options.json, _as_json(found, options.split))
    if options.json != "-":
        # A file or a pipe has no width of its own.
        console = Console(width=None if sys.stdout.isatty() else 200)
        console.print(_table(found, "#-" if console.options.ascii_only else "█·"))
    return 0


def _measure(path: Path, options: argparse.Namespace) -> Scores:
    checkpoint = load(path)
    dataset = open_dataset(options.data, options.format, options.splits)
    if dataset.taxonomy.names != checkpoint.taxonomy.names:
        raise DatasetError(
            f"{options.data}: its classes are not the checkpoint's: {', '.join(checkpoint.taxonomy.names)}"
        )
    samples = dataset.split(options.split)
    with _bar() as bar:
        task = bar.add_task(path.stem, total=len(samples))
        return evaluate(
            checkpoint.model.to(pick_device(options.device)),
            dataset,
            samples,
            inference=_rule(checkpoint, options),
            workers=options.workers,
            progress=lambda done, _: bar.update(task, completed=done),
        )


def checkpoint_files(given: Path) -> list[Path]:
    """The checkpoint itself; of a run folder, every one that lies in it, the one to be used first.

    Raises:
        CheckpointError: the folder holds none.
    """
    if not given.is_dir():
        return [given]
    files = sorted(given.glob("*.safetensors"), key=lambda path: (path.stem != "model", path.stem))
    if not files:
        raise CheckpointError(f"{given}: holds no checkpoint (*.safetensors); give a run's folder or its checkpoint")
    return files


def _window(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    try:
        return int(height), int(width or height)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: write HxW, such as 798x798, or one number") from error


def _rule(checkpoint: Checkpoint, options: argparse.Namespace) -> Inference:
    rule = recipe_from_dict(checkpoint.recipe).inference
    if options.whole or options.window:
        rule = dataclasses.replace(rule, window=options.window or (0, 0))
    if options.long_side is not None:
        rule = dataclasses.replace(rule, long_side=options.long_side)
    return rule


def _as_json(found: dict[str, Scores], split: str) -> dict[str, Any]:
    """One checkpoint's scores as they are; those of several in a list."""
    tables = [each.as_full_dict() | {"split": split} for each in found.values()]
    if len(tables) == 1:
        return tables[0]
    named = [{"checkpoint": path} | table for path, table in zip(found, tables, strict=True)]
    return {"split": split, "checkpoints": named}


def _write_json(target: str, table: dict[str, Any]) -> None:
    text = json.dumps(table, allow_nan=False)
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n", encoding="utf-8")


def _table(found: dict[str, Scores], ink: str) -> Table:
    first = next(iter(found.values()))
    table = Table(box=None, header_style="bold", caption=f"{first.images} images", caption_justify="left")
    table.add_column("class")
    for name in _short(list(found)):
        table.add_column(name, no_wrap=True)
    for name in first.per_class:
        table.add_row(name, *(_with_bar(each.per_class[name], ink) for each in found.values()))
    table.add_section()
    for name, field in {"mIoU": "miou", "pixel accuracy": "pixel_accuracy", "boundary IoU": "boundary_iou"}.items():
        table.add_row(name, *(_with_bar(getattr(each, field), ink) for each in found.values()), style="bold")
    table.add_row("calibration error", *(f"{each.ece:.4f} (0 is best)" for each in found.values()))
    return table


def _with_bar(value: float | None, ink: str) -> str:
    if value is None:
        return "absent"
    filled = round(value * BAR)
    return f"{value:.4f} {ink[0] * filled}{ink[1] * (BAR - filled)}"


def _short(paths: list[str]) -> list[str]:
    """The files' names, with their folders' where names alone would not tell them apart."""
    names = [Path(path).stem for path in paths]
    return names if len(set(names)) == len(names) else [f"{Path(path).parent.name}/{Path(path).stem}" for path in paths]


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
