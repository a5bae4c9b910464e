"""Images made smaller and maps made larger, strip by strip: nothing but the result has the size of the result."""

# H W pixels before, h w after

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.segmentation.inference.prediction import Pixels

STRIP_PIXELS = 2**21
"""Pixels of a strip, of the larger side: 8 MB in Pillow, which keeps four bytes for each."""


def resized(image_HW3: Pixels, size: tuple[int, int]) -> Pixels:
    """An image at another size: bilinear, antialiased where it becomes smaller.

    Args:
        image_HW3: uint8 [H, W, 3].
        size: Height and width.
    """
    height, width = image_HW3.shape[:2]
    if size == (height, width):
        return image_HW3
    scale = height / size[0]
    # Where a row of the result sees rows beyond its strip.
    reach = math.ceil(max(scale, 1)) + 1
    found_hw3 = np.empty((*size, 3), dtype=np.uint8)
    for begin, end in _strips(size[0], max(width * scale, size[1])):
        top, bottom = begin * scale, min(end * scale, height)
        first, last = max(0, math.floor(top) - reach), min(height, math.ceil(bottom) + reach)
        part = Image.fromarray(image_HW3[first:last])
        box = (0, top - first, width, min(bottom - first, last - first))
        found_hw3[begin:end] = np.asarray(part.resize((size[1], end - begin), Image.Resampling.BILINEAR, box))
    return found_hw3


def enlarged(map_HW: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """A map at another size: each pixel takes the value of the nearest one.

    Args:
        map_HW: [H, W] of any type.
        size: Height and width.
    """
    rows_h, columns_w = (_nearest(before, after) for before, after in zip(map_HW.shape, size, strict=True))
    found_hw = np.empty(size, dtype=map_HW.dtype)
    for begin, end in _strips(*size):
        # "clip" of what is in range anyway: with "raise", numpy writes to a copy first.
        np.take(map_HW[rows_h[begin:end]], columns_w, axis=1, out=found_hw[begin:end], mode="clip")
    return found_hw


def _nearest(before: int, after: int) -> npt.NDArray[np.int64]:
    """The pixel of a line of `before` that lies under the middle of each of `after`."""
    return (2 * np.arange(after) + 1) * before // (2 * after)


def _strips(rows: int, row_pixels: float) -> list[tuple[int, int]]:
    step = max(1, int(STRIP_PIXELS / row_pixels))
    return [(begin, min(begin + step, rows)) for begin in range(0, rows, step)]
