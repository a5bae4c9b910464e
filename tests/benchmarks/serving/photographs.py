"""The photographs that are sent: 640x480 JPEGs, cut from those that scikit-image ships, or files of one's own."""

import importlib.resources
import io
from collections.abc import Sequence
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = (640, 480)
COUNT = 24
QUALITY = 90
SOURCES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg")


def write_photographs(folder: Path, own: Path | None = None) -> Path:
    """Fill a folder with JPEGs; the same at every call. Returns it.

    Args:
        folder: Is made.
        own: A folder of images to use instead, in the order of their names.

    Raises:
        ValueError: It holds no image.
    """
    folder.mkdir(parents=True)
    sources = _sources(own)
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        with sources[number % len(sources)].open("rb") as file, Image.open(file) as image:
            view = image.convert("RGB").resize(SIZE) if own else _view(image.convert("RGB"), rng)
        view.save(folder / f"{number:03}.jpg", quality=QUALITY)
    return folder


def read_mask(png: bytes) -> npt.NDArray[np.uint8]:
    """The class ids of a mask, uint8 [H, W]."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def _sources(own: Path | None) -> Sequence[Traversable]:
    if own is None:
        return [importlib.resources.files("skimage") / "data" / name for name in SOURCES]
    found = [file for file in sorted(own.iterdir()) if file.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not found:
        raise ValueError(f"{own} holds no .jpg, .jpeg or .png: give a folder of photographs")
    return found[:COUNT]


def _view(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A part of a picture, mirrored or not, at the size of all."""
    largest = min(image.width / SIZE[0], image.height / SIZE[1])
    width, height = (round(side * largest * rng.uniform(0.6, 1.0)) for side in [SIZE[0], SIZE[1]])
    left, top = (int(rng.integers(0, room + 1)) for room in (image.width - width, image.height - height))
    part = image.resize(SIZE, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.integers(2) else part
