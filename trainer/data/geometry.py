"""The weak augmentation: random resize, crop and horizontal flip, on uint8, alike for photograph and mask.

UniMatch V2 (arXiv 2410.10777), section 5.1: resize by 0.5-2.0, crop, flip with probability 0.5.
"""

# H W pixels, C channels; the crop is h x w.

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
    """The window's pixels, uint8 [h, w, 3]; black where the resized image is smaller than the crop."""
    resized = Image.fromarray(image_HWC).resize((window.width, window.height), Image.Resampling.BILINEAR)
    return _cut(np.asarray(resized), window, crop, fill=0)


def cut_mask(
    mask_HW: npt.NDArray[np.int64], window: Window, crop: tuple[int, int], ignore_index: int
) -> npt.NDArray[np.int64]:
    """The window's class ids, int64 [h, w]; `ignore_index` outside the image."""
    resized = Image.fromarray(mask_HW.astype(np.int32)).resize((window.width, window.height), Image.Resampling.NEAREST)
    return _cut(np.asarray(resized).astype(np.int64), window, crop, fill=ignore_index)


def inside(window: Window, crop: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """True where the crop shows the image and not its padding, bool [h, w]."""
    return _cut(np.ones((window.height, window.width), dtype=np.bool_), window, crop, fill=0)


def _cut(array: npt.NDArray[T], window: Window, crop: tuple[int, int], fill: int) -> npt.NDArray[T]:
    out = np.full((*crop, *array.shape[2:]), fill, dtype=array.dtype)
    part = array[window.top : window.top + crop[0], window.left : window.left + crop[1]]
    out[: part.shape[0], : part.shape[1]] = part
    return np.ascontiguousarray(out[:, ::-1] if window.flip else out)
