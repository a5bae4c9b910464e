"""`evaluate CHECKPOINT... --data DATASET`: score checkpoints on a labelled split."""

import argparse
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
from trainer.data.readers.layouts import open_dataset
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.metrics import Scores
from trainer.processes import pick_device
from trainer.recipe_file import recipe_from_dict

SUMMARY = {
    "mIoU": "miou",
    "mIoU, classes in the truth": "miou_truth_classes",
    "pixel accuracy": "pixel_accuracy",
    "boundary IoU": "boundary_iou",
}
"""Field of `Scores` by row of the table."""
BAR_WIDTH = 10
"""Characters of a full bar in the table."""


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = (
        "Measure mIoU, pixel accuracy, boundary IoU and calibration error on a labelled split. Several checkpoints, or "
        "a run folder with its best, last and student weights, are shown in one table."
    )
    files = "a run's model.safetensors, or its folder"
    command.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help=files)
    command.add_argument("--data", type=Path, required=True, metavar="DATASET", help="a data set's folder")
    command.add_argument("--split", default="val", help="splits/NAME.txt (default: val)")
    command.add_argument("--format", default="auto", help="layout of the folder, a value of the recipe's data.format")
    splits = "folder of the split files (default: DATASET/splits)"
    command.add_argument("--splits", type=Path, metavar="DIR", help=splits)
    command.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write JSON to FILE or standard output")
    command.add_argument("--workers", type=int, default=0, metavar="N", help="data-loading processes (default: 0)")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    rule = command.add_mutually_exclusive_group()
    rule.add_argument("--whole", action="store_true", help="predict whole images instead of by the recipe")
    rule.add_argument("--window", type=_window, metavar="HxW", help="size of a sliding window, in pixels")
    resize = "resize the image's long side before the network; 0 = no resize"
    command.add_argument("--long-side", type=int, metavar="PIXELS", help=resize)


def run(options: argparse.Namespace) -> int:
    """Print or write the scores."""
    paths = [path for given in options.checkpoints for path in checkpoint_files(given)]
    scores = {str(path): _score(path, options) for path in paths}
    if options.json:
        _write_json(options.json, _as_json(scores, options.split))
    if options.json != "-":
        # A file or a pipe has no terminal width.
        console = Console(width=None if sys.stdout.isatty() else 200)
        console.print(_table(scores, "#-" if console.options.ascii_only else "█·"))
    return 0


def _score(path: Path, options: argparse.Namespace) -> Scores:
    checkpoint = load(path)
    dataset = open_dataset(options.data, options.format, options.splits, checkpoint.value_range)
    if dataset.taxonomy.names != checkpoint.taxonomy.names:
        raise DatasetError(
            f"{options.data}: its classes are not the checkpoint's; give a data set with the classes "
            f"{', '.join(checkpoint.taxonomy.names)}"
        )
    samples = dataset.split(options.split)
    with _progress_bar() as bar:
        task = bar.add_task(path.stem, total=len(samples))
        scores = evaluate(
            checkpoint.model.to(pick_device(options.device)),
            dataset,
            samples,
            inference=_inference(checkpoint, options),
            workers=options.workers,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    if not any(map(any, scores.confusion)):
        raise DatasetError(f"{options.data}: every pixel of the masks of {options.split} is ignored; label the images")
    return scores


def checkpoint_files(given: Path) -> list[Path]:
    """The checkpoint itself, or all of a run folder, model.safetensors first. Raises CheckpointError without any."""
    if not given.is_dir():
        return [given]
    files = sorted(given.glob("[!.]*.safetensors"), key=lambda path: (path.stem != "model", path.stem))
    if not files:
        raise CheckpointError(f"{given}: contains no checkpoint (*.safetensors); give a run's folder or its checkpoint")
    return files


def _window(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    try:
        return int(height), int(width or height)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: write HxW, such as 798x798, or one number") from error


def _inference(checkpoint: Checkpoint, options: argparse.Namespace) -> Inference:
    inference = dict(checkpoint.recipe.get("inference", {}))
    if options.whole or options.window:
        inference["window"] = options.window or (0, 0)
    if options.long_side is not None:
        inference["long_side"] = options.long_side
    return recipe_from_dict(checkpoint.recipe | {"inference": inference}, where="evaluate").inference


def _as_json(scores: dict[str, Scores], split: str) -> dict[str, Any]:
    tables = [each.as_full_dict() | {"split": split} for each in scores.values()]
    if len(tables) == 1:
        return tables[0]
    named = [{"checkpoint": path} | table for path, table in zip(scores, tables, strict=True)]
    return {"split": split, "checkpoints": named}


def _write_json(target: str, table: dict[str, Any]) -> None:
    text = json.dumps(table, allow_nan=False)
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n", encoding="utf-8")


def _table(scores: dict[str, Scores], bar_characters: str) -> Table:
    first = next(iter(scores.values()))
    table = Table(box=None, header_style="bold", caption=f"{first.images} images", caption_justify="left")
    table.add_column("class")
    for name in _short_names(list(scores)):
        table.add_column(name, no_wrap=True)
    for name in first.per_class:
        table.add_row(name, *(_class_cell(each, name, bar_characters) for each in scores.values()))
    table.add_section()
    for name, field in SUMMARY.items():
        cells = (_with_bar(getattr(each, field), bar_characters) for each in scores.values())
        table.add_row(name, *cells, style="bold")
        if hasattr(first, f"{field}_over"):
            table.add_row("", *(f"over {getattr(each, f'{field}_over')}" for each in scores.values()))
    table.add_row("calibration error", *(f"{each.ece:.4f} (0 is best)" for each in scores.values()))
    return table


def _class_cell(scores: Scores, name: str, characters: str) -> str:
    value = scores.per_class[name]
    if value is None:
        return "absent"
    return _with_bar(value, characters) if scores.in_truth[name] else "predicted only"


def _with_bar(value: float, characters: str) -> str:
    filled = round(value * BAR_WIDTH)
    return f"{value:.4f} {characters[0] * filled}{characters[1] * (BAR_WIDTH - filled)}"


def _short_names(paths: list[str]) -> list[str]:
    names = [Path(path).stem for path in paths]
    return names if len(set(names)) == len(names) else [f"{Path(path).parent.name}/{Path(path).stem}" for path in paths]


def _progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
