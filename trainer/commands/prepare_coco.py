"""`prepare-coco ROOT --from FORM`: create ROOT/masks from annotations in COCO's format."""

import argparse
from pathlib import Path

from trainer.counted import counted

MAX_NAMED = 20
"""Classes that the output names."""


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.description = (
        "Create ROOT/masks/*.png from annotations in ROOT/annotations: COCO's own, with background and the 80 things, "
        "or others in its format, whose categories become the classes in ROOT/classes.toml. Existing masks are kept, "
        "so a stopped run can be continued."
    )
    command.add_argument("root", type=Path, metavar="ROOT", help="folder with train2017, val2017 and annotations")
    forms = "panoptic: JSON and PNGs; instances: JSON alone; stuffthings: COCO-Stuff's pixel maps or JSON"
    choices = ("panoptic", "instances", "stuffthings")
    command.add_argument("--from", dest="form", choices=choices, required=True, help=forms)


def run(options: argparse.Namespace) -> int:
    """Write the masks and print their number."""
    from trainer.data.coco.coco_masks import prepare_coco  # noqa: PLC0415 (only this command needs pycocotools)

    done = prepare_coco(options.root, options.form)
    print(f"{options.root / 'masks'}: {counted(done.written, 'mask', 'masks')} written, {done.kept} already existed")
    named = ", ".join(done.classes[:MAX_NAMED]) + (", ..." if len(done.classes) > MAX_NAMED else "")
    print(f"{counted(len(done.classes), 'class', 'classes')}: {named}")
    if done.bare:
        images = counted(done.bare, "image has", "images have")
        result = "no mask was written" if options.form == "panoptic" else "background only in the mask"
        print(f"{images} no annotation: {result}")
    return 0
