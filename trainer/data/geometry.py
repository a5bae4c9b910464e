"""The weak augmentation: random resize, crop and horizontal flip, on uint8, alike for photograph and mask.

UniMatch V2 (arXiv 2410.10777), section 5.1: resize by 0.5-2.0, crop, flip with probability 0.5.
"""

# H W pixels, C channels; the crop is h x w.

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Window:
    """Where a crop lies: the resized image's size, the crop's corner in it, and whether it is mirrored."""

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
    """The window's pixels, uint8 [h, w, 3]; black where the resized image is smaller than the crop.

    Only the part of the image under the crop is resized. The pixels are those of a whole image that is resized and then
    cropped, but for halves: Pillow takes the box as float32, and each of its two passes may round them the other way.
    """
    top, bottom, y_box = _source(image_HWC.shape[0], window.height, window.top, crop[0])
    left, right, x_box = _source(image_HWC.shape[1], window.width, window.left, crop[1])
    height, width = _shown(window, crop)
    box = (x_box[0], y_box[0], x_box[1], y_box[1])
    part = Image.fromarray(image_HWC[top:bottom, left:right]).resize((width, height), Image.Resampling.BILINEAR, box)
    if window.flip:
        # Pillow mirrors twenty times faster than NumPy copies pixels backwards.
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _placed(np.asarray(part), window, crop, fill=0)


def cut_mask(
    mask_HW: npt.NDArray[np.int64], window: Window, crop: tuple[int, int], ignore_index: int
) -> npt.NDArray[np.int64]:
    """The window's class ids, int64 [h, w], by the nearest pixel; `ignore_index` outside the image."""
    height, width = _shown(window, crop)
    rows_h = _nearest(mask_HW.shape[0], window.height, window.top, height)
    columns_w = _nearest(mask_HW.shape[1], window.width, window.left, width)
    if window.flip:
        columns_w = columns_w[::-1]
    # Rows are copied whole; one index for both sides would look up each pixel by itself.
    return _placed(mask_HW.take(rows_h, axis=0).take(columns_w, axis=1), window, crop, fill=ignore_index)


def inside(window: Window, crop: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """True where the crop shows the image and not its padding, bool [h, w]."""
    return _placed(np.ones(_shown(window, crop), dtype=np.bool_), window, crop, fill=0)


def _shown(window: Window, crop: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the part of the crop that shows the image."""
    return min(crop[0], window.height - window.top), min(crop[1], window.width - window.left)


def _source(side: int, resized: int, first: int, length: int) -> tuple[int, int, tuple[float, float]]:
    """Which pixels of a side of the image a crop needs.

    Args:
        side: of the image, in pixels.
        resized: the same side after resizing.
        first: the crop's first pixel in the resized image.
        length: the crop's.

    Returns:
        First and last (excluded) pixel, with those that the filter reaches beyond the box; and the box in them.
    """
    scale = side / resized
    begin, end = first * scale, min(first + length, resized) * scale
    # The bilinear filter reaches one pixel of the coarser of both grids; one more is for its rounding.
    reach = max(scale, 1.0) + 1
    low, high = max(0, math.floor(begin - reach)), min(side, math.ceil(end + reach))
    return low, high, (begin - low, min(end - low, high - low))


def _nearest(side: int, resized: int, first: int, length: int) -> npt.NDArray[np.int64]:
    """The image's pixel under the centre of each of the crop's, in integers and so without rounding."""
    return (2 * (first + np.arange(length, dtype=np.int64)) + 1) * side // (2 * resized)


def _placed(part: npt.NDArray[T], window: Window, crop: tuple[int, int], fill: int) -> npt.NDArray[T]:
    """The crop with `part` in its upper left corner; in its upper right one where the window is mirrored."""
    height, width = part.shape[:2]
    if (height, width) == crop:
        # A copy in any case: Pillow's pixels are read-only, and torch takes none such.
        return np.array(part, order="C")
    out = np.full((*crop, *part.shape[2:]), fill, dtype=part.dtype)
    first = crop[1] - width if window.flip else 0
    out[:height, first : first + width] = part
    return out
