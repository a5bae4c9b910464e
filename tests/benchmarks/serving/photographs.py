"""Make the benchmark's images: 640x480 JPEGs from scikit-image's photographs or from a given folder."""

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
    """Write the JPEGs to a folder and return it. The same sources give the same bytes.

    Args:
        folder: Folder to create.
        own: Folder of images to use instead, in the order of their names.

    Raises:
        ValueError: `own` contains no image.
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
    """Decode a mask to class ids, uint8 [H, W]."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def _sources(own: Path | None) -> Sequence[Traversable]:
    if own is None:
        return [importlib.resources.files("skimage") / "data" / name for name in SOURCES]
    found = [file for file in sorted(own.iterdir()) if file.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not found:
        raise ValueError(f"{own} contains no .jpg, .jpeg or .png file; give a folder of photographs")
    return found[:COUNT]


def _view(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop a random part, resize it to SIZE and mirror it at random."""
    largest = min(image.width / SIZE[0], image.height / SIZE[1])
    width, height = (round(side * largest * rng.uniform(0.6, 1.0)) for side in [SIZE[0], SIZE[1]])
    left, top = (int(rng.integers(0, room + 1)) for room in (image.width - width, image.height - height))
    part = image.resize(SIZE, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.integers(2) else part
