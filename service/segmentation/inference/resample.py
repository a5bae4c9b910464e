"""Scale images down and maps up in strips, so that only the result takes the memory of its full size."""

# H W pixels before, h w after

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.segmentation.inference.predictor import Pixels

STRIP_PIXELS = 2**21
"""Pixels of a strip before or after scaling, whichever are more: 8 MB at Pillow's four bytes per pixel."""


def resized(image_HW3: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize an image, uint8 [H, W, 3], to a height and width: bilinear, with antialiasing when scaling down.

    Returns the image itself if it has that size.
    """
    height, width = image_HW3.shape[:2]
    if size == (height, width):
        return image_HW3
    scale = height / size[0]
    # Rows outside a strip that influence its result.
    margin = math.ceil(max(scale, 1)) + 1
    found_hw3 = np.empty((*size, 3), dtype=np.uint8)
    for begin, end in _strips(size[0], max(width * scale, size[1])):
        top, bottom = begin * scale, min(end * scale, height)
        first, last = max(0, math.floor(top) - margin), min(height, math.ceil(bottom) + margin)
        strip = Image.fromarray(image_HW3[first:last])
        box = (0, top - first, width, min(bottom - first, last - first))
        found_hw3[begin:end] = np.asarray(strip.resize((size[1], end - begin), Image.Resampling.BILINEAR, box))
    return found_hw3


def enlarged(map_HW: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Resize a map, [H, W] of any type, to a height and width: nearest neighbour."""
    rows_h, columns_w = (_nearest(before, after) for before, after in zip(map_HW.shape, size, strict=True))
    found_hw = np.empty(size, dtype=map_HW.dtype)
    for begin, end in _strips(*size):
        # All indices are in range; mode="clip" only prevents the copy that numpy makes with "raise".
        np.take(map_HW[rows_h[begin:end]], columns_w, axis=1, out=found_hw[begin:end], mode="clip")
    return found_hw


def _nearest(before: int, after: int) -> npt.NDArray[np.int64]:
    """For each of `after` pixels, the one of `before` pixels that contains its centre."""
    return (2 * np.arange(after) + 1) * before // (2 * after)


def _strips(rows: int, row_pixels: float) -> list[tuple[int, int]]:
    step = max(1, int(STRIP_PIXELS / row_pixels))
    return [(begin, min(begin + step, rows)) for begin in range(0, rows, step)]
