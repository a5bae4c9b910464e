"""Decode files to arrays: images to RGB, masks to their stored values.

Rules for images, in order:

| content of the file             | Pillow's mode     | result                                                        |
|---------------------------------|-------------------|---------------------------------------------------------------|
| several frames or pages         |                   | the first                                                     |
| EXIF orientation                |                   | applied; a broken EXIF is ignored                             |
| 32-bit integers, floats         | I, F              | scaled by the range that `_scaled` finds; NaN is an error     |
| 16 bits, grey                   | I;16 and variants | the upper 8 bits (Pillow would clip to white)                 |
| 12 bits, grey                   | I;16              | the upper 8 bits                                              |
| 16 bits, colour                 | RGB, RGBA         | the upper 8 bits, by Pillow                                   |
| alpha                           | LA, PA, RGBA      | composited on white, as on a web page                         |
| premultiplied alpha             | RGBa              | the same                                                      |
| transparent colour or entries   | 1, L, P, RGB      | the same                                                      |
| palette                         | P                 | looked up                                                     |
| 1 bit, grey                     | 1, L              | the one channel three times                                   |
| CMYK                            | CMYK              | converted without a profile; a JPEG's is inverted, as Adobe's |
| YCbCr, Lab, HSV                 | YCbCr, LAB, HSV   | converted by Pillow                                           |
| an unused fourth channel        | RGBX              | dropped                                                       |
| damaged, truncated              |                   | ImageError                                                    |

Deviation: the authors ignore EXIF orientation, which turns an image against a mask drawn on the upright one.

The service decodes alike, but rejects files with several frames; tests/contract checks every row for both.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.Image import DecompressionBombError

DAMAGED = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error, DecompressionBombError)
"""Pillow's exceptions for damaged files; they differ by format."""
BITS, ORIENTATION = 0x0102, 0x0112
"""TIFF and EXIF tags."""

SIDEWAYS = frozenset({5, 6, 7, 8})
"""Orientations that swap width and height."""

Source = Path | io.BytesIO

NO_IMAGE = "no such image; add it or remove its name from the split files"
NO_MASK_FILE = "the mask is missing; add it or remove its name from the labelled split"
REPLACE = "replace the file or remove its name from the split files"


class ImageError(ValueError):
    """An image or a mask cannot be used."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image file as HWC uint8 RGB, 0..255. Raises ImageError."""
    return decode_image(path, path)


def decode_image(source: Source, name: Path) -> npt.NDArray[np.uint8]:
    """Decode an image as HWC uint8 RGB. Raises ImageError, which calls it `name`."""
    with _image_errors(name, NO_IMAGE, "cannot be decoded", REPLACE), Image.open(source) as file:
        file.load()
        return np.asarray(to_rgb(_upright(file)))


def image_size(source: Source, name: Path) -> tuple[int, int]:
    """(height, width) of an image after EXIF orientation, from its header only. Raises ImageError."""
    with _image_errors(name, NO_IMAGE, "is not an image", REPLACE), Image.open(source) as file:
        width, height = file.size
        # For TIFF, Pillow applies the orientation itself and reports the final size.
        swapped = file.format != "TIFF" and _orientation(file) in SIDEWAYS
        return (width, height) if swapped else (height, width)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB by the table above. Raises ValueError for floats that are not finite."""
    if image.mode in {"I", "F"}:
        return Image.fromarray(_scaled(np.asarray(image, dtype=np.float64), image.mode)).convert("RGB")
    if image.mode.startswith("I;16"):
        shift = 4 if getattr(image, "tag_v2", {}).get(BITS) == (12,) else 8
        return Image.fromarray((np.asarray(image) >> shift).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    # `convert` would copy an RGB image.
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled(values_HW: npt.NDArray[np.float64], mode: str) -> npt.NDArray[np.uint8]:
    """Scale to 0..255. White is 1, 255 or 65535 for floats, 255 or 65535 for integers: the lowest that fits all values.

    If a value is negative or above 65535, the minimum becomes black and the maximum white.
    """
    low, high = float(values_HW.min()), float(values_HW.max())
    if not np.isfinite(high - low):
        raise ValueError("some pixels are not finite numbers")
    for white in (255.0, 65535.0) if mode == "I" else (1.0, 255.0, 65535.0):
        if low >= 0 and high <= white:
            low, high = 0.0, white
            break
    # 256 equal steps; up to 65535 they equal the upper 8 bits.
    step = 255.999 / (high - low) if high > low else 0.0
    return ((values_HW - low) * step).astype(np.uint8)


def decode_values(source: Source, name: Path) -> npt.NDArray[np.integer[Any]]:
    """Decode the stored values of a mask, HW, uint8, uint16 or int32; of a palette image, the indices.

    Raises ImageError, also for several channels.
    """
    with _image_errors(name, NO_MASK_FILE, "cannot be decoded", "export it again"), Image.open(source) as file:
        if file.mode not in {"L", "P", "1", "I;16", "I;16B", "I"}:
            raise ImageError(
                f"{name}: a mask must have one channel of class ids, but its mode is {file.mode}; save an indexed "
                'or grey PNG, or set masks = "colours" in classes.toml if colours encode the classes'
            )
        return _values(file)


def decode_colors(source: Source, name: Path) -> npt.NDArray[np.uint8]:
    """Decode a mask of colours, HWC uint8 RGB, ignoring alpha. Raises ImageError."""
    with _image_errors(name, NO_MASK_FILE, "cannot be decoded", "export it again"), Image.open(source) as file:
        return np.asarray(file.convert("RGB"))


@contextmanager
def _image_errors(name: Path, missing: str, damaged: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ImageError(f"{name}: {missing}") from error
    except ImageError:
        raise
    except DAMAGED as error:
        raise ImageError(f"{name}: {damaged} ({error}); {remedy}") from error


def _values(image: Image.Image) -> npt.NDArray[np.integer[Any]]:
    # Pillow scales 2-bit and 4-bit grey to 0..255; undo that.
    tiles = getattr(image, "tile", [])
    stretch = {"L;2": 85, "L;4": 17}.get(str(tiles[0].args), 1) if tiles else 1
    stored_HW = np.asarray(image)
    if stored_HW.dtype == np.bool_:
        return stored_HW.astype(np.uint8)
    return stored_HW // np.uint8(stretch) if stretch > 1 else stored_HW


def _upright(image: Image.Image) -> Image.Image:
    # `exif_transpose` would copy an upright image.
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
