"""Generate a segmentation data set of texture mosaics, without a download.

The images follow the Prague texture segmentation benchmark (Haindl and Mikes, 2008): irregular regions, each filled
with one of eight textures, which is its class. The textures are crops of photographs in scikit-image's wheel. Training
mosaics use the left part of each photograph, validation mosaics the right part, with a gap between, so that no pixel
occurs in both.
"""

# H, W pixels of a mosaic; P pixels of one region; S regions; h, w pixels of a crop of a photograph; 3 = RGB

import argparse
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from demo import DemoError

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

REGIONS = (3, 6)
"""Minimum and maximum per mosaic."""
SCALE = (0.7, 1.4)
"""Output pixels per pixel of the (reduced) photograph."""
CONTRAST = (0.7, 1.3)
"""Factor on the difference from the mean."""
BRIGHTNESS = (-30.0, 30.0)
"""Offset, on a scale of 0 to 255."""
TRAINING_END, VALIDATION_START = 0.58, 0.62
"""Ends of the parts, as fractions of a photograph's width."""
SMALLEST_REGION = 0.04
"""Minimum fraction of its mosaic that a region covers, so that each class is visible."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Texture:
    """One class and the photograph of its pixels."""

    name: str
    color: tuple[int, int, int]
    """RGB in mask pictures, [0, 255]."""
    file: str
    """File name in scikit-image's data folder."""
    reduce: int = 1
    """Factor by which the photograph is downscaled first, so that its pattern repeats within a region."""
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """Part that shows the texture: left, top, right, bottom as fractions of the photograph's width and height."""


TEXTURES = (
    Texture(name="brick", color=(196, 78, 58), file="brick.png", reduce=2),
    Texture(name="grass", color=(88, 168, 76), file="grass.png"),
    Texture(name="gravel", color=(150, 150, 158), file="gravel.png"),
    Texture(name="stars", color=(46, 60, 140), file="hubble_deep_field.jpg", reduce=2),
    Texture(name="tissue", color=(170, 110, 190), file="ihc.png", reduce=2),
    Texture(name="page", color=(240, 220, 140), file="page.png"),
    Texture(name="coins", color=(64, 176, 186), file="coins.png"),
    # The retina is a disc on black; the box lies inside it.
    Texture(name="retina", color=(238, 132, 60), file="retina.jpg", reduce=3, box=(0.17, 0.17, 0.83, 0.83)),
)
MIN_MOSAICS = -(-len(TEXTURES) // REGIONS[0])
"""Mosaics that contain every class even if each has the fewest regions."""


def make_textures(
    out: Path, *, labelled: int = 6, unlabelled: int = 240, val: int = 60, size: int = 128, seed: int = 0
) -> None:
    """Write the data set: a folder with classes.toml, images/, masks/ and splits/.

    `labelled`, `unlabelled` and `val` are the numbers of mosaics per split; only `labelled` and `val` have masks, and
    both contain every class. `size` is the height and width of a mosaic in pixels, at least 32. The same arguments give
    the same bytes. The folder is renamed into place once it is complete.

    Raises DemoError if scikit-image is not installed, `out` is not empty, or a number or the size is too small.
    """
    if min(labelled, val) < MIN_MOSAICS or unlabelled < 0:
        raise DemoError(
            f"labelled={labelled} unlabelled={unlabelled} val={val}: set labelled and val to at least {MIN_MOSAICS} "
            f"(each of the {len(TEXTURES)} classes must occur) and unlabelled to at least 0"
        )
    if size < 32:
        raise DemoError(f"size={size} is too small to show a texture: set at least 32")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DemoError(f"{out} is not empty: delete it or choose another folder")

    training, validation = _load_photographs(0.0, TRAINING_END), _load_photographs(VALIDATION_START, 1.0)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ("images", "masks", "splits"):
        (partial / folder).mkdir(parents=True)
    (partial / "classes.toml").write_text(_classes_toml(), encoding="utf-8")
    plan = (("labelled", labelled, training), ("unlabelled", unlabelled, training), ("val", val, validation))
    for number, (split, count, photographs) in enumerate(plan):
        rng = np.random.default_rng([seed, number])
        names = [f"{split}_{index:04d}" for index in range(count)]
        for name, classes in zip(names, _draw_classes(count, rng), strict=True):
            image_HW3, mask_HW = _mosaic(photographs, classes, size, rng)
            Image.fromarray(image_HW3).save(partial / "images" / f"{name}.png")
            if split != "unlabelled":
                Image.fromarray(mask_HW).save(partial / "masks" / f"{name}.png")
        (partial / "splits" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    if out.exists():
        out.rmdir()
    partial.replace(out)


def _classes_toml() -> str:
    head = "# Texture mosaics from photographs in scikit-image. Masks contain class ids.\nignore_index = 255\n"
    return head + "".join(
        f'\n[[classes]]\nname = "{texture.name}"\ncolor = {list(texture.color)}\n' for texture in TEXTURES
    )


def _load_photographs(start: float, stop: float) -> list[Floats]:
    """Load the part of each photograph between two fractions of its width: float32 [h, w, 3], [0, 255], by class id."""
    try:
        folder = resources.files("skimage") / "data"
    except ModuleNotFoundError as error:
        raise DemoError(
            "scikit-image is not installed, and its photographs contain the textures: uv pip install '.[demo]'"
        ) from error
    parts = []
    for texture in TEXTURES:
        with (folder / texture.file).open("rb") as file:
            photograph = Image.open(file).convert("RGB")
        left, top, right, bottom = texture.box
        part = (left + start * (right - left), top, left + stop * (right - left), bottom)
        pixels = [round(fraction * side) for fraction, side in zip(part, 2 * photograph.size, strict=True)]
        # Crop before downscaling: averaging must not mix pixels across the gap.
        crop = photograph.crop((pixels[0], pixels[1], pixels[2], pixels[3])).reduce(texture.reduce)
        parts.append(np.asarray(crop, dtype=np.float32))
    return parts


def _draw_classes(count: int, rng: np.random.Generator) -> list[list[int]]:
    """Draw the distinct class ids of each of `count` mosaics.

    They come from a shuffled queue of all classes, so that even a few mosaics contain every class. A class that the
    mosaic already has stays in the queue.
    """
    mosaics: list[list[int]] = []
    queue: list[int] = []
    for _ in range(count):
        classes: list[int] = []
        for _ in range(rng.integers(REGIONS[0], REGIONS[1] + 1)):
            if not set(queue) - set(classes):
                queue += rng.permutation(len(TEXTURES)).tolist()
            class_id = next(class_id for class_id in queue if class_id not in classes)
            queue.remove(class_id)
            classes.append(class_id)
        mosaics.append(classes)
    return mosaics


def _mosaic(photographs: list[Floats], classes: list[int], size: int, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Draw an image, uint8 [H, W, 3], and its mask of class ids, uint8 [H, W]."""
    region_HW = _regions(len(classes), size, rng)
    image_HW3 = np.empty((size, size, 3), np.uint8)
    for region, class_id in enumerate(classes):
        inside_HW = region_HW == region
        image_HW3[inside_HW] = _fill(photographs[class_id], np.argwhere(inside_HW).T, size, rng)
    return image_HW3, np.asarray(classes, np.uint8)[region_HW]


def _regions(count: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Partition a square of `size` pixels into `count` irregular regions, numbered from 0: intp [H, W].

    They are Voronoi cells of random sites, deformed by a smooth random displacement, and are drawn again until each
    covers `SMALLEST_REGION`.
    """
    ndimage = _ndimage()
    while True:
        sites_S2 = rng.uniform(0, size, (count, 2))
        noise_2HW = ndimage.gaussian_filter(rng.standard_normal((2, size, size)), (0, size / 14, size / 14))
        displacement_2HW = noise_2HW / noise_2HW.std() * (size / 20)
        position_2HW = np.indices((size, size)) + displacement_2HW
        distance_SHW = ((position_2HW - sites_S2[:, :, None, None]) ** 2).sum(axis=1)
        region_HW: npt.NDArray[np.intp] = distance_SHW.argmin(axis=0)
        if np.bincount(region_HW.ravel(), minlength=count).min() >= SMALLEST_REGION * size * size:
            return region_HW


def _fill(photograph_hw3: Floats, position_2P: npt.NDArray[np.intp], size: int, rng: np.random.Generator) -> Bytes:
    """Sample the pixels of one region, uint8 [P, 3], from a randomly scaled, rotated and flipped photograph.

    Contrast and brightness are random too. The photograph is mirrored at its border.
    """
    ndimage = _ndimage()
    scale, angle = rng.uniform(*SCALE), rng.uniform(0, 2 * np.pi)
    flip = rng.choice([-1.0, 1.0])
    rotation = np.array([[np.cos(angle), -np.sin(angle) * flip], [np.sin(angle), np.cos(angle) * flip]])
    centre = rng.uniform(0, 1, 2) * (np.array(photograph_hw3.shape[:2]) - 1)
    source_2P = rotation @ (position_2P - size / 2) / scale + centre[:, None]
    channels = [
        ndimage.map_coordinates(photograph_hw3[..., channel], source_2P, order=1, mode="reflect")
        for channel in range(3)
    ]
    pixels_P3 = np.stack(channels, axis=1)
    mean = photograph_hw3.mean()
    adjusted_P3 = (pixels_P3 - mean) * rng.uniform(*CONTRAST) + mean + rng.uniform(*BRIGHTNESS)
    adjusted: Bytes = np.clip(np.rint(adjusted_P3), 0, 255).astype(np.uint8)
    return adjusted


def _ndimage() -> Any:
    """scipy.ndimage, which comes with scikit-image."""
    return import_module("scipy.ndimage")


def main(arguments: list[str] | None = None) -> int:
    """Make the data set from the command line: python -m demo.textures DATASET."""
    parser = argparse.ArgumentParser(prog="python -m demo.textures", description="Make a data set of texture mosaics.")
    parser.add_argument("out", type=Path, metavar="DATASET", help="output folder; new or empty")
    for name, default in (("labelled", 6), ("unlabelled", 240), ("val", 60), ("size", 128), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"default: {default}")
    try:
        make_textures(**vars(parser.parse_args(arguments)))
    except (DemoError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
