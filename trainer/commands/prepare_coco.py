"""`prepare-coco ROOT --from FORM`: create ROOT/masks from COCO's annotations."""

import argparse
from pathlib import Path


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = (
        "Create ROOT/masks/*.png (background and the 80 thing classes) from COCO's annotations in ROOT/annotations. "
        "Existing masks are kept, so a stopped run can be continued."
    )
    command.add_argument("root", type=Path, metavar="ROOT", help="folder with train2017, val2017 and annotations")
    forms = "panoptic: JSON and PNGs; instances: JSON alone; stuffthings: COCO-Stuff's pixel maps or JSON"
    choices = ("panoptic", "instances", "stuffthings")
    command.add_argument("--from", dest="form", choices=choices, required=True, help=forms)


def run(options: argparse.Namespace) -> int:
    """Write the masks and print their number."""
    from trainer.data.coco_masks import prepare_coco  # noqa: PLC0415 (only this command needs pycocotools)

    written, kept = prepare_coco(options.root, options.form)
    print(f"{options.root / 'masks'}: {written} masks written, {kept} already existed")
    return 0
