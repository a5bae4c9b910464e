"""Weak augmentation: random resize, crop and horizontal flip, on uint8, the same for image and mask.

UniMatch V2 (arXiv 2410.10777), section 5.1: resize by 0.5-2.0, flip with probability 0.5.
"""

# H W pixels of the image, C channels, h w pixels of the crop

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Window:
    """Position of a crop: size of the resized image, the crop's upper left corner in it, horizontal flip."""

    height: int
    width: int
    top: int
    left: int
    flip: bool


def draw_window(
    size: tuple[int, int], crop: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator
) -> Window:
    """Draw a random window for an image of `size` (height, width), in pixels."""
    factor = rng.uniform(*scale)
    height, width = (max(1, round(side * factor)) for side in size)
    top = int(rng.integers(0, max(height - crop[0], 0) + 1))
    left = int(rng.integers(0, max(width - crop[1], 0) + 1))
    return Window(height, width, top, left, flip=bool(rng.random() < 0.5))


def cut_image(image_HWC: npt.NDArray[np.uint8], window: Window, crop: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize and crop an image, uint8 [h, w, 3]; black where the resized image is smaller than the crop.

    Only the part under the crop is resized; equal to cropping the resized image, up to Pillow's rounding of halves.
    """
    top, bottom, y_box = _source(image_HWC.shape[0], window.height, window.top, crop[0])
    left, right, x_box = _source(image_HWC.shape[1], window.width, window.left, crop[1])
    height, width = _shown(window, crop)
    box = (x_box[0], y_box[0], x_box[1], y_box[1])
    part = Image.fromarray(image_HWC[top:bottom, left:right]).resize((width, height), Image.Resampling.BILINEAR, box)
    if window.flip:
        # Pillow flips twenty times as fast as NumPy copies reversed pixels.
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _pad(np.asarray(part), window, crop, fill=0)


def cut_mask(
    mask_HW: npt.NDArray[np.int64], window: Window, crop: tuple[int, int], ignore_index: int
) -> npt.NDArray[np.int64]:
    """Resize a mask by nearest neighbour and crop it, int64 [h, w]; `ignore_index` outside the image."""
    height, width = _shown(window, crop)
    rows_h = _nearest(mask_HW.shape[0], window.height, window.top, height)
    columns_w = _nearest(mask_HW.shape[1], window.width, window.left, width)
    if window.flip:
        columns_w = columns_w[::-1]
    # Two takes copy whole rows; one index would look up every pixel.
    return _pad(mask_HW.take(rows_h, axis=0).take(columns_w, axis=1), window, crop, fill=ignore_index)


def inside(window: Window, crop: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Pixels of the crop that show the image, not padding, bool [h, w]."""
    return _pad(np.ones(_shown(window, crop), dtype=np.bool_), window, crop, fill=0)


def _shown(window: Window, crop: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the part of the crop that shows the image."""
    return min(crop[0], window.height - window.top), min(crop[1], window.width - window.left)


def _source(side: int, resized: int, first: int, length: int) -> tuple[int, int, tuple[float, float]]:
    """First and last (excluded) source pixel along one axis, with the filter's margin; the box relative to the first.

    The crop is `length` pixels from pixel `first` of an image resized from `side` to `resized` pixels.
    """
    scale = side / resized
    begin, end = first * scale, min(first + length, resized) * scale
    # The bilinear filter reaches one pixel of the coarser grid; one more allows for rounding.
    reach = max(scale, 1.0) + 1
    low, high = max(0, math.floor(begin - reach)), min(side, math.ceil(end + reach))
    return low, high, (begin - low, min(end - low, high - low))


def _nearest(side: int, resized: int, first: int, length: int) -> npt.NDArray[np.int64]:
    """Index of the source pixel under the centre of each crop pixel, in exact integer arithmetic."""
    return (2 * (first + np.arange(length, dtype=np.int64)) + 1) * side // (2 * resized)


def _pad(part: npt.NDArray[T], window: Window, crop: tuple[int, int], fill: int) -> npt.NDArray[T]:
    """Pad `part` to the crop's size, at the right (left if flipped) and at the bottom."""
    height, width = part.shape[:2]
    if (height, width) == crop:
        # Always copy: Pillow's arrays are read-only, which torch.from_numpy does not support.
        return np.array(part, order="C")
    out = np.full((*crop, *part.shape[2:]), fill, dtype=part.dtype)
    first = crop[1] - width if window.flip else 0
    out[:height, first : first + width] = part
    return out
