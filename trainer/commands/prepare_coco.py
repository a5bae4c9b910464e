"""`prepare-coco ROOT --from FORM`: make ROOT/masks of COCO's own annotations."""

import argparse
from pathlib import Path


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = (
        "Make ROOT/masks/*.png (background and the 80 things) of COCO's own annotations in ROOT/annotations. "
        "Masks that exist are kept, so that a stopped run goes on."
    )
    command.add_argument("root", type=Path, metavar="ROOT", help="holds train2017, val2017 and annotations")
    forms = "panoptic: JSON and PNGs; instances: JSON alone; stuffthings: COCO-Stuff's pixel maps or JSON"
    choices = ("panoptic", "instances", "stuffthings")
    command.add_argument("--from", dest="form", choices=choices, required=True, help=forms)
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write the masks and print how many."""
    from trainer.data.coco_masks import prepare_coco  # noqa: PLC0415 (pycocotools is needed here alone)

    written, kept = prepare_coco(options.root, options.form)
    print(f"{options.root / 'masks'}: {written} masks written, {kept} were there")
    return 0
