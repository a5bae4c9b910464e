"""Mosaics of real textures, for a demonstration that needs no download.

In the manner of the Prague texture segmentation benchmark (Haindl and Mikes, 2008): irregular regions, each filled with
one texture, and the task is to say which texture lies where. The textures are cut from eight photographs that ship
inside scikit-image's wheel. Training mosaics see the left part of each photograph and validation mosaics the right
part, with a gap between, so that no pixel is ever in both.
"""

# H, W pixels of a mosaic; P pixels of one region; h, w pixels of a photograph's part; 3 = RGB

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
"""Fewest and most regions in one mosaic, both included."""
SCALE = (0.7, 1.4)
"""Output pixels per pixel of the (reduced) photograph."""
CONTRAST = (0.7, 1.3)
BRIGHTNESS = (-30.0, 30.0)
TRAINING_END, VALIDATION_START = 0.58, 0.62
"""Where the two parts of a photograph end and begin, as fractions of its width: the gap lies between."""
SMALLEST_REGION = 0.04
"""Every region covers at least this fraction of its mosaic, so that a class which is there can also be seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Texture:
    """One class of the demonstration and where its pixels come from."""

    name: str
    """Name of the class."""
    color: tuple[int, int, int]
    """RGB, [0, 255], for pictures of masks."""
    file: str
    """Name inside scikit-image's data folder."""
    reduce: int = 1
    """The photograph is first made smaller by this factor, so that its pattern repeats within a region."""
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """Left, top, right, bottom as fractions of the photograph: what of it shows the texture."""


TEXTURES = (
    Texture(name="brick", color=(196, 78, 58), file="brick.png", reduce=2),
    Texture(name="grass", color=(88, 168, 76), file="grass.png"),
    Texture(name="gravel", color=(150, 150, 158), file="gravel.png"),
    Texture(name="stars", color=(46, 60, 140), file="hubble_deep_field.jpg", reduce=2),
    Texture(name="tissue", color=(170, 110, 190), file="ihc.png", reduce=2),
    Texture(name="page", color=(240, 220, 140), file="page.png"),
    Texture(name="coins", color=(64, 176, 186), file="coins.png"),
    # The retina is a disc on black: the box is the square inside the disc.
    Texture(name="retina", color=(238, 132, 60), file="retina.jpg", reduce=3, box=(0.17, 0.17, 0.83, 0.83)),
)
FEWEST_MOSAICS = -(-len(TEXTURES) // REGIONS[0])
"""So many mosaics of the fewest regions hold every class."""


def make_textures(
    out: Path, *, labelled: int = 6, unlabelled: int = 240, val: int = 60, size: int = 128, seed: int = 0
) -> None:
    """Write the demonstration's data set: a folder with classes.toml, images/, masks/ and splits/.

    Masks are written for the labelled and validation mosaics only. The same arguments give the same bytes. The folder
    appears complete or not at all.

    Args:
        out: The folder to make; it must not exist, or be empty.
        labelled: Mosaics in split `labelled`; every class is in at least one of them.
        unlabelled: Mosaics in split `unlabelled`, from the same parts of the photographs.
        val: Mosaics in split `val`, from the other parts; every class is in at least one of them.
        size: Height and width of a mosaic in pixels, at least 32.
        seed: What the mosaics are drawn from.

    Raises:
        DemoError: scikit-image is not installed, `out` holds something already, there are too few mosaics to show
            every class, or they are too small to show a texture.
    """
    if min(labelled, val) < FEWEST_MOSAICS or unlabelled < 0:
        raise DemoError(
            f"labelled={labelled} unlabelled={unlabelled} val={val}: labelled and val must be at least "
            f"{FEWEST_MOSAICS}, so that each of the {len(TEXTURES)} classes appears"
        )
    if size < 32:
        raise DemoError(f"size={size}: a texture cannot be told in so few pixels; use 32 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DemoError(f"{out} is not empty: remove it or name another folder")

    training, validation = _photographs(slice(0.0, TRAINING_END)), _photographs(slice(VALIDATION_START, 1.0))
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ("images", "masks", "splits"):
        (partial / folder).mkdir(parents=True)
    (partial / "classes.toml").write_text(_classes_toml(), encoding="utf-8")
    plan = (("labelled", labelled, training), ("unlabelled", unlabelled, training), ("val", val, validation))
    for number, (split, count, photographs) in enumerate(plan):
        rng = np.random.default_rng([seed, number])
        names = [f"{split}_{index:04d}" for index in range(count)]
        for name, classes in zip(names, _deal_classes(count, rng), strict=True):
            image_HW3, mask_HW = _mosaic(photographs, classes, size, rng)
            Image.fromarray(image_HW3).save(partial / "images" / f"{name}.png")
            if split != "unlabelled":
                Image.fromarray(mask_HW).save(partial / "masks" / f"{name}.png")
        (partial / "splits" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    if out.exists():
        out.rmdir()
    partial.replace(out)


def _classes_toml() -> str:
    head = (
        "# Textures from photographs inside scikit-image. Mask pixels hold the id; 255 = ignore.\nignore_index = 255\n"
    )
    return head + "".join(
        f'\n[[classes]]\nname = "{texture.name}"\ncolor = {list(texture.color)}\n' for texture in TEXTURES
    )


def _photographs(columns: slice) -> list[Floats]:
    """The part of every photograph between two fractions of its width: float32 [h, w, 3], [0, 255], by class id."""
    try:
        folder = resources.files("skimage") / "data"
    except ModuleNotFoundError as error:
        raise DemoError(
            "the textures are cut from photographs inside scikit-image: pip install 'maskloop[demo]'"
        ) from error
    parts = []
    for texture in TEXTURES:
        with (folder / texture.file).open("rb") as file:
            photograph = Image.open(file).convert("RGB")
        left, top, right, bottom = texture.box
        part = (left + columns.start * (right - left), top, left + columns.stop * (right - left), bottom)
        pixels = [round(fraction * side) for fraction, side in zip(part, 2 * photograph.size, strict=True)]
        # Cut first, then reduce: averaging must not carry pixels across the gap.
        cut = photograph.crop((pixels[0], pixels[1], pixels[2], pixels[3])).reduce(texture.reduce)
        parts.append(np.asarray(cut, dtype=np.float32))
    return parts


def _deal_classes(count: int, rng: np.random.Generator) -> list[list[int]]:
    """The classes of each of `count` mosaics, different ones within a mosaic, dealt like cards.

    No class comes again before every other one had its turn (but for a swap where a mosaic would hold it twice), so
    even a few mosaics show them all.
    """
    hands: list[list[int]] = []
    deck: list[int] = []
    for _ in range(count):
        hand: list[int] = []
        for _ in range(rng.integers(REGIONS[0], REGIONS[1] + 1)):
            if not set(deck) - set(hand):
                deck += rng.permutation(len(TEXTURES)).tolist()
            card = next(card for card in deck if card not in hand)
            deck.remove(card)
            hand.append(card)
        hands.append(hand)
    return hands


def _mosaic(photographs: list[Floats], classes: list[int], size: int, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """One image uint8 [H, W, 3] and its mask uint8 [H, W] of class ids."""
    region_HW = _regions(len(classes), size, rng)
    image_HW3 = np.empty((size, size, 3), np.uint8)
    for region, class_id in enumerate(classes):
        inside_HW = region_HW == region
        image_HW3[inside_HW] = _fill(photographs[class_id], np.argwhere(inside_HW).T, size, rng)
    return image_HW3, np.asarray(classes, np.uint8)[region_HW]


def _regions(count: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """A partition of the square into `count` irregular regions, numbered from 0: intp [H, W].

    The Voronoi cells of random sites, seen through a smooth random warp. Drawn again until none is too small.
    """
    ndimage = _ndimage()
    while True:
        sites_S2 = rng.uniform(0, size, (count, 2))
        noise_2HW = ndimage.gaussian_filter(rng.standard_normal((2, size, size)), (0, size / 14, size / 14))
        warp_2HW = noise_2HW / noise_2HW.std() * (size / 20)
        place_2HW = np.indices((size, size)) + warp_2HW
        distance_SHW = ((place_2HW - sites_S2[:, :, None, None]) ** 2).sum(axis=1)
        region_HW: npt.NDArray[np.intp] = distance_SHW.argmin(axis=0)
        if np.bincount(region_HW.ravel(), minlength=count).min() >= SMALLEST_REGION * size * size:
            return region_HW


def _fill(photograph_hw3: Floats, place_2P: npt.NDArray[np.intp], size: int, rng: np.random.Generator) -> Bytes:
    """Pixels uint8 [P, 3] for the places of one region: the photograph scaled, turned, flipped and relit at random.

    Beyond its border the photograph goes on as its mirror image, so that there are no black corners.
    """
    ndimage = _ndimage()
    scale, angle = rng.uniform(*SCALE), rng.uniform(0, 2 * np.pi)
    flip = rng.choice([-1.0, 1.0])
    turn = np.array([[np.cos(angle), -np.sin(angle) * flip], [np.sin(angle), np.cos(angle) * flip]])
    centre = rng.uniform(0, 1, 2) * (np.array(photograph_hw3.shape[:2]) - 1)
    source_2P = turn @ (place_2P - size / 2) / scale + centre[:, None]
    channels = [
        ndimage.map_coordinates(photograph_hw3[..., channel], source_2P, order=1, mode="reflect")
        for channel in range(3)
    ]
    pixels_P3 = np.stack(channels, axis=1)
    mean = photograph_hw3.mean()
    relit_P3 = (pixels_P3 - mean) * rng.uniform(*CONTRAST) + mean + rng.uniform(*BRIGHTNESS)
    relit: Bytes = np.clip(np.rint(relit_P3), 0, 255).astype(np.uint8)
    return relit


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
