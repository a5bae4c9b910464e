"""`evaluate CHECKPOINT --data DATASET`: how good a checkpoint is on a labelled split."""

import argparse
import json
from pathlib import Path

from trainer.checkpoint import load
from trainer.data.dataset import DatasetError
from trainer.data.layouts import open_dataset
from trainer.devices import pick_device
from trainer.evaluate import evaluate


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's model.safetensors")
    command.add_argument("--data", type=Path, required=True, metavar="DATASET", help="a data set's folder")
    command.add_argument("--split", default="val", help="splits/NAME.txt (default: val)")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the scores."""
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
        print(json.dumps(found.as_dict() | {"split": options.split}))
        return 0
    for name, iou in found.per_class.items():
        print(f"{name:24} {'absent' if iou is None else f'{iou:.4f}'}")
    print(f"{'mIoU':24} {found.miou:.4f}   ({found.images} images, pixel accuracy {found.pixel_accuracy:.4f})")
    return 0
