"""Files to arrays: photographs to RGB, masks to the values that they store.

What becomes of a photograph, in the order in which the rules apply:

| what the file holds             | Pillow's mode     | what becomes of it                                            |
|---------------------------------|-------------------|---------------------------------------------------------------|
| several frames or pages         |                   | the first                                                     |
| EXIF orientation                |                   | applied; a broken EXIF is ignored                             |
| 32-bit integers, floats         | I, F              | scaled by the range that `_scaled` finds; NaN is damage       |
| 16 bits, grey                   | I;16 and variants | the upper 8 bits (Pillow would clip to white)                 |
| 12 bits, grey                   | I;16              | the upper 8 bits                                              |
| 16 bits, colour                 | RGB, RGBA         | the upper 8 bits, by Pillow                                   |
| alpha                           | LA, PA, RGBA      | composited on white, as a browser's page does                 |
| premultiplied alpha             | RGBa              | the same                                                      |
| one clear colour, clear entries | 1, L, P, RGB      | the same                                                      |
| palette                         | P                 | looked up                                                     |
| 1 bit, grey                     | 1, L              | the one channel three times                                   |
| CMYK                            | CMYK              | converted without a profile; a JPEG's is inverted, as Adobe's |
| YCbCr, Lab, HSV                 | YCbCr, LAB, HSV   | converted by Pillow                                           |
| an unused fourth channel        | RGBX              | dropped                                                       |
| damaged, cut off                |                   | refused                                                       |

The service decodes by the same rules, so that a model is asked about what it was trained on; tests/contract pins
every row for both. (The service also refuses several frames: a client must say which one is meant.)
"""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on files that are damaged, by format."""

BITS, ORIENTATION = 0x0102, 0x0112
"""Tags of TIFF and EXIF."""

SIDEWAYS = frozenset({5, 6, 7, 8})
"""Orientations that lay the picture on its side: width and height change places."""

Source = Path | io.BytesIO


class ImageError(ValueError):
    """An image or a mask that cannot be used; the message names the file and says why."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read a photograph as HWC uint8 RGB, 0..255. Raises ImageError when it cannot be decoded."""
    return decode_image(path, path)


def decode_image(source: Source, name: Path) -> npt.NDArray[np.uint8]:
    """Decode a photograph from a file or from memory, as HWC uint8 RGB; `name` is for the ImageError."""
    try:
        with Image.open(source) as file:
            file.load()
            return np.asarray(to_rgb(_upright(file)))
    except FileNotFoundError as error:
        raise ImageError(f"{name}: there is no such image") from error
    except DAMAGED as error:
        remedy = "replace the file or take its name out of the splits"
        raise ImageError(f"{name}: cannot be decoded ({error}); {remedy}") from error


def image_size(source: Source, name: Path) -> tuple[int, int]:
    """(height, width) of a photograph as it is viewed, from its header alone. Raises ImageError."""
    try:
        with Image.open(source) as file:
            width, height = file.size
            # Pillow turns TIFFs by itself, and gives the size that they will have.
            sideways = file.format != "TIFF" and _orientation(file) in SIDEWAYS
            return (width, height) if sideways else (height, width)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: there is no such image") from error
    except DAMAGED as error:
        remedy = "replace the file or take its name out of the splits"
        raise ImageError(f"{name}: is no image ({error}); {remedy}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB by the table above. Raises ValueError for floats that are not finite."""
    if image.mode in {"I", "F"}:
        return Image.fromarray(_scaled(np.asarray(image, dtype=np.float64), image.mode)).convert("RGB")
    if image.mode.startswith("I;16"):
        shift = 4 if getattr(image, "tag_v2", {}).get(BITS) == (12,) else 8
        return Image.fromarray((np.asarray(image) >> shift).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    # `convert` would copy what is RGB already.
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled(values_HW: npt.NDArray[np.float64], mode: str) -> npt.NDArray[np.uint8]:
    """The white of floats is 1, 255 or 65535, of integers 255 or 65535: the least that no value exceeds.

    Where values are negative or larger, the least of them is black and the greatest white.
    """
    low, high = float(values_HW.min()), float(values_HW.max())
    if not np.isfinite(high - low):
        raise ValueError("its pixels are not all finite numbers")
    for white in (255.0, 65535.0) if mode == "I" else (1.0, 255.0, 65535.0):
        if low >= 0 and high <= white:
            low, high = 0.0, white
            break
    # 256 steps of equal width, which for whole numbers up to 65535 are their upper 8 bits.
    step = 255.999 / (high - low) if high > low else 0.0
    return ((values_HW - low) * step).astype(np.uint8)


def decode_values(source: Source, name: Path) -> npt.NDArray[np.integer[Any]]:
    """Decode a mask's stored values, HW, uint8, uint16 or int32; a palette image gives its indices.

    Raises:
        ImageError: no such file, damaged, or more than one channel; it says `name`.
    """
    try:
        with Image.open(source) as file:
            if file.mode not in {"L", "P", "1", "I;16", "I;16B", "I"}:
                raise ImageError(
                    f"{name}: a mask has one channel of class ids, this one is {file.mode}; save an indexed or grey "
                    'PNG, or say masks = "colours" in classes.toml where colours stand for the classes'
                )
            return _values(file)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: the mask is missing; add it or take its name out of the labelled split") from error
    except DAMAGED as error:
        raise _bad_mask(name, error) from error


def decode_colors(source: Source, name: Path) -> npt.NDArray[np.uint8]:
    """Decode a mask of colours, HWC uint8 RGB, without blending alpha. Raises ImageError as `decode_values` does."""
    try:
        with Image.open(source) as file:
            return np.asarray(file.convert("RGB"))
    except FileNotFoundError as error:
        raise ImageError(f"{name}: the mask is missing; add it or take its name out of the labelled split") from error
    except DAMAGED as error:
        raise _bad_mask(name, error) from error


def _bad_mask(name: Path, error: Exception) -> ImageError:
    return (
        error if isinstance(error, ImageError) else ImageError(f"{name}: cannot be decoded ({error}); export it anew")
    )


def _values(image: Image.Image) -> npt.NDArray[np.integer[Any]]:
    # Pillow stretches greys of 2 and 4 bits over 0..255; in a mask they are ids.
    tiles = getattr(image, "tile", [])
    stretch = {"L;2": 85, "L;4": 17}.get(str(tiles[0].args), 1) if tiles else 1
    stored_HW = np.asarray(image)
    if stored_HW.dtype == np.bool_:
        return stored_HW.astype(np.uint8)
    return stored_HW // np.uint8(stretch) if stretch > 1 else stored_HW


def _upright(image: Image.Image) -> Image.Image:
    # `exif_transpose` would copy what stands upright already.
    if _orientation(image) == 1:
        return image
    try:
        return ImageOps.exif_transpose(image)
    except DAMAGED:
        return image


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except DAMAGED:
        return 1
    return value if isinstance(value, int) else 1
