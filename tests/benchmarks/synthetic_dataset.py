"""A generated data set of photograph-like JPEGs and masks for the training benchmark."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

WIDTH, HEIGHT = 640, 480
CLASSES = 21


def write_dataset(root: Path, count: int) -> Path:
    """Write a folder data set of `count` labelled and `count` unlabelled 640x480 images; return its root."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks", "splits"):
        (root / folder).mkdir(parents=True)
    colours = [(7 * index % 256, 83 * index % 256, 151 * index % 256) for index in range(CLASSES)]
    tables = (f'[[classes]]\nname = "class {i}"\ncolor = {list(colour)}\n' for i, colour in enumerate(colours))
    (root / "classes.toml").write_text("".join(tables), encoding="utf-8")
    for split in ("labelled", "unlabelled"):
        names = [f"{split}{index}" for index in range(count)]
        (root / f"splits/{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        for name in names:
            Image.fromarray(_image(rng)).save(root / f"images/{name}.jpg", quality=90)
            if split == "labelled":
                Image.fromarray(_mask(rng)).save(root / f"masks/{name}.png")
    return root


def _image(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Noise whose amplitude falls with frequency, as in photographs: about 100 KB as a JPEG."""
    octaves = [_smooth(rng, cells, 3) * weight for cells, weight in ((4, 70), (16, 35), (64, 18), (320, 9))]
    return np.clip(128 + sum(octaves), 0, 255).astype(np.uint8)


def _mask(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Regions of five classes with smooth borders."""
    level_HW = _smooth(rng, 6, 1)[..., 0]
    return (np.digitize(level_HW, [-0.8, -0.2, 0.2, 0.8]) * 5).astype(np.uint8)


def _smooth(rng: np.random.Generator, cells: int, channels: int) -> npt.NDArray[np.float32]:
    """Gaussian noise on a grid of `cells` columns, interpolated: float [H,W,channels]."""
    grids = rng.standard_normal((channels, max(2, cells * HEIGHT // WIDTH), cells)).astype(np.float32)
    planes = [Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC) for grid in grids]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)
