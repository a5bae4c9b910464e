"""Random images and labels: no two are equal, or near-duplicates."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.chaos.first_model import SIDE

BLOCK = 8
CLASSES = 8

Mask = npt.NDArray[np.uint8]


def random_image(rng: np.random.Generator) -> tuple[str, bytes]:
    """Return the id and the PNG of a mosaic of coloured squares."""
    small = rng.integers(0, 256, (SIDE // BLOCK, SIDE // BLOCK, 3), dtype=np.uint8)
    data = _png(small.repeat(BLOCK, 0).repeat(BLOCK, 1))
    return hashlib.sha256(data).hexdigest(), data


def random_mask(rng: np.random.Generator) -> tuple[Mask, bytes]:
    """Return class ids [H, W] in squares, and their PNG."""
    small = rng.integers(0, CLASSES, (SIDE // BLOCK, SIDE // BLOCK), dtype=np.uint8)
    mask = small.repeat(BLOCK, 0).repeat(BLOCK, 1)
    return mask, _png(mask)


def read_mask(data: bytes) -> Mask:
    """Return the class ids of a PNG."""
    return np.asarray(Image.open(io.BytesIO(data)), dtype=np.uint8)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()
