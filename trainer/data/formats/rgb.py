"""Convert a decoded image of any of Pillow's modes to RGB with 8 bits per channel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.data.formats.tiff_tags import bits_and_numbers, fourth_band_is_alpha

ValueRange = tuple[float, float]
"""The stored values that become black and white; the first is smaller."""

STRETCHED = {"L;2": 85, "L;4": 17}
"""Factor by which Pillow multiplies grey of 2 and 4 bits."""
FULL_16_BITS = (0.0, 65535.0)


class NotFiniteError(ValueError):
    """An image stores NaN or infinity, and is not damaged."""


def undeclared_numbers(image: Image.Image) -> str | None:
    """Describe the numbers of an image if its format does not define which are black and white."""
    bits, numbers = bits_and_numbers(image)
    if image.mode in ("I", "F") or (image.mode == "L" and numbers == "signed integers"):
        return f"{bits}-bit {numbers}"
    return "12-bit integers" if image.mode.startswith("I;16") and bits == 12 else None


def is_16_bit_color(image: Image.Image) -> bool:
    """Whether an image that is not yet decoded has colours of 16 bits: Pillow reads only the upper 8."""
    # In BMP, ";16" means colours with 5 or 6 bits per channel.
    return image.format in ("PNG", "TIFF") and not image.mode.startswith("I") and ";16" in rawmode(image)


def read_transparency(image: Image.Image) -> bool:
    """Prepare the transparent colour of a PNG that is not yet decoded; return False if Pillow cannot apply it.

    Pillow compares it, as stored, with grey that it stretches to 8 bits, and with the upper 8 of 16 bits.
    """
    color, stored_as = image.info.get("transparency"), rawmode(image)
    if image.format != "PNG" or color is None:
        return True
    if (factor := STRETCHED.get(stored_as)) and isinstance(color, int):
        image.info["transparency"] = color * factor
    return ";16" not in stored_as


def rawmode(image: Image.Image) -> str:
    """Pillow's name of the stored pixels of an image that is not yet decoded: "RGB;16B"."""
    tiles: list[Any] = getattr(image, "tile", [])
    args = tiles[0].args if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def stored_numbers(image: Image.Image, dtype: type[np.generic] | None = None) -> npt.NDArray[Any]:
    """Numbers of an image with one channel, HW. Raises NotFiniteError for NaN and infinity.

    Args:
        image: The image, or a part of it.
        dtype: From `stored_dtype` of the whole image.
    """
    values_HW = np.asarray(image)
    numbers_HW = values_HW if dtype is None else values_HW.view(dtype)
    if not np.isfinite(numbers_HW).all():
        raise NotFiniteError("some pixels are not finite numbers; replace NaN and infinity by numbers")
    return numbers_HW


def stored_dtype(image: Image.Image) -> type[np.generic] | None:
    """Type of the stored numbers, if Pillow takes them for another one of the same size."""
    bits, numbers = bits_and_numbers(image)
    if image.mode == "L" and numbers == "signed integers":
        return np.int8
    return np.uint32 if (image.mode, bits, numbers) == ("I", 32, "unsigned integers") else None


def rgb_conversion(image: Image.Image, value_range: ValueRange | None) -> Callable[[Image.Image], Image.Image]:
    """Return the function that converts an image, or parts of it, to RGB.

    `value_range` is needed for an image with `undeclared_numbers`. The function raises NotFiniteError.
    """
    is_16_bit = image.mode.startswith("I;16")
    if value_range and (is_16_bit or undeclared_numbers(image)):
        return partial(_scale, value_range=value_range, dtype=stored_dtype(image))
    if is_16_bit:
        return _upper_8_bits
    if image.mode == "RGBA" and not fourth_band_is_alpha(image):
        return partial(Image.Image.convert, mode="RGB")
    return to_rgb


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image with 8 bits per channel to RGB, composited on white."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    # `convert` would copy an RGB image.
    return image if image.mode == "RGB" else image.convert("RGB")


def _upper_8_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")


def _scale(image: Image.Image, *, value_range: ValueRange, dtype: type[np.generic] | None) -> Image.Image:
    """Scale to 0..255 in 256 equal steps; values outside the range become black or white."""
    black, white = value_range
    numbers_HW = stored_numbers(image, dtype).astype(np.float64)
    steps_HW = (np.clip(numbers_HW, black, white) - black) * (255.999 / (white - black))
    return Image.fromarray(steps_HW.astype(np.uint8)).convert("RGB")
