"""`import SOURCE --out DATASET`: turn the images and labels of another tool into a data set."""

import argparse
import json
import math
import shlex
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.counted import counted
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.import_source import Outcome, import_source
from trainer.data.imports.source.loss_report import Loss
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder
from trainer.data.imports.source_formats import FORMATS, Found

DESCRIPTION = (
    "Find out what SOURCE is, and write its images and labels as a data set: classes.toml, images, masks, splits, "
    "overview.jpg (images with their masks, to look at) and import.json (what became of each file). SOURCE is a folder "
    "or a ZIP archive."
)
MAX_NAMED = 30
"""Classes that the output names."""


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = DESCRIPTION
    command.add_argument("source", type=Path, metavar="SOURCE", help="folder or ZIP archive of images and labels")
    target = command.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="DATASET", help="folder to write; must be empty or not exist")
    target.add_argument("--zip", type=Path, metavar="FILE", help="write a ZIP archive (FILE.zip) instead")
    formats = ("auto", *(each.name for each in FORMATS))
    command.add_argument("--format", choices=formats, default="auto", help="format of SOURCE (default: auto)")
    _add_masks(command)
    _add_decisions(command)
    command.add_argument("--link", action="store_true", help="hard links to the images of SOURCE instead of copies")
    size = "limit for the files of a ZIP archive (default: 64)"
    command.add_argument("--max-unpacked-gb", type=_positive, default=64.0, metavar="GB", help=size)
    pixels = "width times height above which images are not imported (default: no limit)"
    command.add_argument("--max-image-pixels", type=int, metavar="N", help=pixels)
    command.add_argument("--json", action="store_true", help="print JSON lines: found, progress, loss, done")


def _add_masks(command: argparse.ArgumentParser) -> None:
    masks = command.add_argument_group("masks in folders of their own (--format masks)")
    masks.add_argument("--images", default="", metavar="DIR", help="folder of the images within SOURCE")
    masks.add_argument("--masks", default="", metavar="DIR", help="folder of the masks within SOURCE")
    pattern = 'name of an image\'s mask, such as "{stem}_mask.png"; with {class}, one mask for each class'
    masks.add_argument("--mask-pattern", default="", metavar="PATTERN", help=pattern)
    values = "values of the masks that are ignored"
    masks.add_argument("--ignore-values", type=int, nargs="+", default=[], metavar="N", help=values)
    classes = command.add_mutually_exclusive_group()
    file = "list of classes, if SOURCE has none: classes.toml, labelmap.txt, class_names.txt, id2label.json, ..."
    classes.add_argument("--classes", type=Path, metavar="FILE", help=file)
    names = "names of the classes, in the order of their values in the masks"
    classes.add_argument("--class-names", action="extend", nargs="+", default=[], metavar="NAME", help=names)


def _add_decisions(command: argparse.ArgumentParser) -> None:
    decisions = command.add_argument_group("decisions")
    rest = "what pixels are that no region covers (default: background, which becomes class 0)"
    decisions.add_argument("--rest", choices=("background", "ignored"), default="background", help=rest)
    empty = "what images without an annotation are (default: unlabelled)"
    decisions.add_argument("--empty", choices=("unlabelled", "background"), default="unlabelled", help=empty)
    ignored = "ignore the pixels of a class; can be repeated"
    decisions.add_argument("--ignore-class", action="append", default=[], metavar="NAME", help=ignored)
    share = "share of the labelled images to draw for validation, if SOURCE has no such split (default: 0.2)"
    decisions.add_argument("--val-share", type=_share, default=0.2, metavar="SHARE", help=share)
    decisions.add_argument("--seed", type=int, default=0, metavar="N", help="of the drawing (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Write the data set and print what was found, what was lost, and what to do next."""
    target = options.out or _zip_target(options.zip)
    if options.max_image_pixels:
        # Pillow raises an error above twice this.
        Image.MAX_IMAGE_PIXELS = options.max_image_pixels // 2
    output = _Lines() if options.json else _Text(options.program)
    outcome = import_source(options.source, target, _import_options(options), output)
    output.done(outcome, target)
    return 0


def _import_options(options: argparse.Namespace) -> ImportOptions:
    return ImportOptions(
        format=options.format,
        images=options.images,
        masks=options.masks,
        mask_pattern=options.mask_pattern,
        classes=options.classes,
        class_names=tuple(options.class_names),
        ignore_classes=frozenset(options.ignore_class),
        ignore_values=tuple(options.ignore_values),
        rest=options.rest,
        empty=options.empty,
        val_share=options.val_share,
        seed=options.seed,
        link=options.link,
        max_unpacked_bytes=int(options.max_unpacked_gb * 1e9),
        progress=not options.json,
    )


def _zip_target(path: Path) -> Path:
    if path.suffix.lower() != ".zip":
        raise SourceError(f"--zip {path}: must end in .zip; use --out for a folder")
    return path


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: 0 <= SHARE < 1")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


class _Lines:
    """JSON lines for programs."""

    def found(self, source: SourceFolder, found: Found) -> None:
        self._print("found", source=source.title, format=found.format.name, evidence=found.evidence)

    def progress(self, done: int, total: int) -> None:
        # A hundred lines, whatever the number of images.
        if done == total or done % max(1, total // 100) == 0:
            self._print("progress", done=done, total=total)

    def done(self, outcome: Outcome, target: Path) -> None:
        summary = outcome.as_dict()
        for loss in summary.pop("losses"):
            self._print("loss", **loss)
        self._print("done", target=str(target), **summary)

    def _print(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), flush=True)


class _Text:
    """Sentences for people.

    Args:
        program: what the user called, without the command.
    """

    def __init__(self, program: str) -> None:
        self._program = program

    def found(self, source: SourceFolder, found: Found) -> None:
        evidence = f": {found.evidence}" if found.evidence else ""
        print(f"{source.title}: {found.format.title}{evidence}")

    def progress(self, done: int, total: int) -> None:
        pass  # the bar shows it

    def done(self, outcome: Outcome, target: Path) -> None:
        summary = outcome.as_dict()
        for loss in outcome.written.losses.groups():
            _print_loss(loss)
        splits = ", ".join(f"{number} {split}" for split, number in summary["splits"].items() if number)
        images = counted(summary["images"], "image", "images")
        print(f"{images}, {counted(summary['masks'], 'mask', 'masks')}; {splits}")
        classes = [(entry["name"], entry["masks"]) for entry in summary["classes"]]
        named = ", ".join(f"{name} ({masks})" for name, masks in classes[:MAX_NAMED])
        more = f" and {len(classes) - MAX_NAMED} more" if len(classes) > MAX_NAMED else ""
        print(f"{counted(len(classes), 'class', 'classes')}, with the number of masks that show it: {named}{more}")
        print(next_step(target, self._program))


def _print_loss(loss: Loss) -> None:
    count = f" ({loss.count})" if loss.count > 1 else ""
    print(f"- {loss.message}{count}" + (f"; {loss.remedy}" if loss.remedy else ""))
    for example in loss.examples:
        print(f"    {example}")
    if loss.examples and loss.count > len(loss.examples):
        print(f"    and {loss.count - len(loss.examples)} more; import.json lists the files")


def next_step(target: Path, program: str) -> str:
    """What to do with the result, as a sentence."""
    if target.suffix.lower() == ".zip":
        return f"{target}: unpack it, and look at overview.jpg: are the masks right?"
    name = shlex.quote(str(target))
    return (
        f"Look at {target / 'overview.jpg'}: are the masks right? Then run:\n  {program} check {name}\n"
        f"  {program} train {name}"
    )
