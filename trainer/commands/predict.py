"""`predict CHECKPOINT IMAGE... --out DIR`: write masks and overlays of images."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainer.checkpoint import Checkpoint, load
from trainer.data.decode import read_image
from trainer.evaluation.inference import most_likely
from trainer.recipe_file import recipe_from_dict
from trainer.run_error import RunError

OVERLAY_OPACITY = 0.5


def add(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's model.safetensors")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    folder = "folder for NAME.png (class ids, coloured by a palette) and NAME.overlay.jpg"
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help=folder)


def run(options: argparse.Namespace) -> int:
    """Write the files and print the paths of the masks."""
    for path in predict(load(options.checkpoint), options.images, options.out):
        print(path)
    return 0


@torch.inference_mode()
def predict(checkpoint: Checkpoint, images: Sequence[Path], out: Path) -> Iterator[Path]:
    """Write OUT/NAME.png (indexed, pixel = class id) and OUT/NAME.overlay.jpg for each image; yield the masks' paths.

    Raises ImageError; RecipeError if the window does not fit the encoder; RunError if an output would overwrite an
    input, or another image's output.
    """
    _check_outputs(images, out)
    out.mkdir(parents=True, exist_ok=True)
    recipe = recipe_from_dict(checkpoint.recipe)
    palette_K3 = np.array(checkpoint.taxonomy.colors, dtype=np.uint8)
    for path in images:
        image_HWC = read_image(path, recipe.data.value_range)
        class_1HW, _ = most_likely(checkpoint.model, torch.from_numpy(image_HWC.copy())[None], recipe.inference)
        mask_HW = class_1HW[0].numpy()
        mask, overlay = _outputs(path, out)
        is_indexed = len(palette_K3) <= 256
        image = Image.fromarray(mask_HW.astype(np.uint8 if is_indexed else np.uint16))
        if is_indexed:
            image.putpalette(palette_K3.tobytes())
        image.save(mask)
        blend_HWC = image_HWC * (1 - OVERLAY_OPACITY) + palette_K3[mask_HW] * OVERLAY_OPACITY
        Image.fromarray(blend_HWC.astype(np.uint8)).save(overlay, quality=92)
        yield mask


def _outputs(image: Path, out: Path) -> tuple[Path, Path]:
    return out / f"{image.stem}.png", out / f"{image.stem}.overlay.jpg"


def _check_outputs(images: Sequence[Path], out: Path) -> None:
    inputs = {image.resolve() for image in images}
    stems: dict[str, Path] = {}
    for image in images:
        for path in _outputs(image, out):
            if path.resolve() in inputs:
                raise RunError(f"{path}: is one of the images and would be overwritten; give another --out")
        # Some file systems ignore case.
        if other := stems.get(image.stem.casefold()):
            raise RunError(f"{other} and {image} would both become {_outputs(image, out)[0]}; rename one, or run twice")
        stems[image.stem.casefold()] = image
