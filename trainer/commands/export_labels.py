"""`export-labels DATASET --to FORMAT --out DIR`: write a data set's labels for another tool."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from trainer.counted import counted
from trainer.data.exports.export_dataset import ExportOptions, export_dataset, sentence
from trainer.data.exports.export_forms import FORMS
from trainer.data.readers.layouts import MARKS

DESCRIPTION = (
    "Write the images and labels of a data set in the format of another tool, say what the format cannot hold, and how "
    "to load it there."
)
STDOUT = "-"


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = DESCRIPTION
    command.add_argument("dataset", type=Path, metavar="DATASET", help="folder of a data set")
    forms = "; ".join(f"{name}: {form.title}" for name, form in FORMS.items())
    command.add_argument("--to", choices=tuple(FORMS), required=True, help=f"format ({forms})")
    target = "folder, which must be empty or not exist, or FILE.zip; -: a ZIP archive on stdout"
    command.add_argument("--out", required=True, metavar="DIR", help=target)
    layout = "layout of DATASET (default: auto)"
    command.add_argument("--format", choices=("auto", *MARKS), default="auto", help=layout)
    command.add_argument("--no-images", action="store_true", help="write the labels only")
    command.add_argument("--json", action="store_true", help="print JSON lines: progress, loss, done")


def run(options: argparse.Namespace) -> int:
    """Write the labels, and print what was lost and how to load them."""
    chosen = ExportOptions(
        form=options.to, layout=options.format, with_images=not options.no_images, progress=not options.json
    )
    on_done = _print_progress if options.json else lambda _done, _total: None
    if options.out == STDOUT:
        with _stdout_for_bytes() as stream:
            exported = export_dataset(options.dataset, stream, chosen, on_done)
    else:
        exported = export_dataset(options.dataset, Path(options.out), chosen, on_done)
    if options.json:
        summary = exported.as_dict()
        for loss in summary.pop("losses"):
            _print("loss", **loss)
        _print("done", target=options.out, **summary)
        return 0
    for loss in exported.losses:
        print(f"- {sentence(loss)}")
    labels = counted(exported.labels, "label", "labels")
    print(f"{counted(exported.images, 'image', 'images')}, {labels}: {options.out}")
    print(FORMS[options.to].how_to_load.format(out=options.out.removesuffix(".zip"), program=options.program))
    return 0


def _stdout_for_bytes() -> Any:
    """The standard output. From now on, everything that is printed goes to the standard error."""
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return stream


def _print_progress(done: int, total: int) -> None:
    # A hundred lines, whatever the number of images.
    if done == total or done % max(1, total // 100) == 0:
        _print("progress", done=done, total=total)


def _print(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)
