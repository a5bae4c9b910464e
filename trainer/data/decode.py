"""Decode files to arrays: images to RGB, masks to their stored values.

Rules for images, in order:

| content of the file             | Pillow's mode     | result                                                        |
|---------------------------------|-------------------|---------------------------------------------------------------|
| several frames or pages         |                   | the first that is no overview, thumbnail or mask of another   |
| unused metadata                 |                   | ignored, however large or damaged it is                       |
| EXIF orientation                |                   | applied; a broken EXIF is ignored                             |
| floats, 32 bits, 12 bits, grey  | I, F, I;16        | scaled by `data.range`; without one, or with NaN: ImageError  |
| signed 8 or 16 bits, grey       | L, I              | the same                                                      |
| 16 bits, grey                   | I;16 and variants | the same; without `data.range`, the upper 8 bits              |
| 16 bits, colour                 | RGB, RGBA         | the upper 8 bits; ImageError if `data.range` is another one   |
| other numbers or bands          |                   | ImageError with what the file holds                           |
| alpha                           | LA, PA, RGBA      | composited on white, as on a web page                         |
| premultiplied alpha             | RGBa              | the same                                                      |
| transparent colour or entries   | 1, L, P, RGB      | the same                                                      |
| fourth band of a GeoTIFF        | RGBA              | ignored: GDAL marks every fourth band as alpha                |
| transparent colour of 16 bits   | I;16, RGB         | ImageError: Pillow compares it with 8 bits                    |
| palette                         | P                 | looked up                                                     |
| 1, 2 or 4 bits, grey            | 1, L              | the one channel three times                                   |
| CMYK                            | CMYK              | converted without a profile; a JPEG's is inverted, as Adobe's |
| YCbCr, Lab, HSV                 | YCbCr, LAB, HSV   | converted by Pillow                                           |
| an unused fourth channel        | RGBX              | dropped                                                       |
| damaged, truncated              |                   | ImageError with the damage                                    |

`data.range` = [black, white] makes 256 equal steps; values outside it become black or white. The service decodes alike,
but rejects files with several frames; tests/contract checks every row for both. Masks are read as their stored values,
whatever Pillow makes of them: 4-bit grey is not stretched, "white is zero" is not inverted. Their EXIF orientation is
applied.

Deviation: the authors ignore EXIF orientation, which turns an image against a mask drawn on the upright one.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.Image import DecompressionBombError

from trainer.data.formats.open_errors import find_fault
from trainer.data.formats.png_chunks import SIGNATURE, is_of_ios, without_metadata
from trainer.data.formats.rgb import (
    FULL_16_BITS,
    NotFiniteError,
    ValueRange,
    is_16_bit_color,
    rawmode,
    read_transparency,
    rgb_conversion,
    stored_dtype,
    stored_numbers,
    undeclared_numbers,
)
from trainer.data.formats.tiff_tags import has_sub_pages, select_page, unreadable_kind
from trainer.user_error import UserError

DAMAGED = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error, DecompressionBombError)
"""Pillow's exceptions for damaged files; they differ by format."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")
ORIENTATION = 0x0112
"""EXIF tag."""

USUAL_VALUES = (0.1, 99.9)
"""Percentiles between which nearly all values are."""

SIDEWAYS = frozenset({5, 6, 7, 8})
"""Orientations that swap width and height."""

Source = Path | io.BytesIO

NO_IMAGE = "no such image; add it or remove its name from the split files"
NO_MASK_FILE = "the mask is missing; add it or remove its name from the labelled split"
REPLACE = "replace the file or remove its name from the split files"


class ImageError(UserError):
    """An image or a mask cannot be used."""


class UndeclaredRangeError(ImageError):
    """An image needs `data.range`; nearly all of its values are between `low` and `high`."""

    def __init__(self, name: Path, numbers: str, low: float, high: float) -> None:
        super().__init__(
            f"{name}: the pixels are {numbers}, and black and white are not declared; set data.range = [BLACK, WHITE] "
            "in the recipe: check-data proposes the values"
        )
        self.low, self.high = low, high


def read_image(path: Path, value_range: ValueRange | None = None) -> npt.NDArray[np.uint8]:
    """Read an image file as HWC uint8 RGB, 0..255. Raises ImageError."""
    return decode_image(path, path, value_range)


def decode_image(source: Source, name: Path, value_range: ValueRange | None = None) -> npt.NDArray[np.uint8]:
    """Decode an image as HWC uint8 RGB. Raises ImageError, which calls it `name`."""
    with _image_errors(name, NO_IMAGE, "cannot be decoded", REPLACE), _open(source) as file:
        _check_range(file, name, value_range)
        convert = rgb_conversion(file, value_range)
        file.load()
        return np.asarray(convert(_upright(file)))


def image_size(source: Source, name: Path, value_range: ValueRange | None = None) -> tuple[int, int]:
    """(height, width) of an image after EXIF orientation, from its header only. Raises ImageError."""
    with _image_errors(name, NO_IMAGE, "is not an image", REPLACE), _open(source) as file:
        _check_range(file, name, value_range)
        width, height = file.size
        # For TIFF, Pillow applies the orientation itself and reports the final size.
        swapped = file.format != "TIFF" and _orientation(file) in SIDEWAYS
        return (width, height) if swapped else (height, width)


def stored_orientation(source: Source, name: Path) -> int:
    """EXIF orientation of an image, 1..8; 1 for TIFF, which Pillow turns itself. Raises ImageError."""
    with _image_errors(name, NO_IMAGE, "is not an image", REPLACE), _open(source) as file:
        return 1 if file.format == "TIFF" else _orientation(file)


def decode_values(source: Source, name: Path) -> npt.NDArray[np.integer[Any]]:
    """Decode the stored values of an upright mask, HW, uint8, uint16 or int32; of a palette image, the indices.

    Raises ImageError, also for several channels.
    """
    with _image_errors(name, NO_MASK_FILE, "cannot be decoded", "export it again"), _open(source) as file:
        if file.mode not in {"L", "P", "1", "I;16", "I;16B", "I"}:
            raise ImageError(
                f"{name}: a mask must have one channel of class ids, but its mode is {file.mode}; save an indexed "
                'or grey PNG, or set masks = "colours" in classes.toml if colours encode the classes'
            )
        stored_as = rawmode(file)
        file.load()
        return _stored_values(np.asarray(_upright(file)), stored_as)


def decode_colors(source: Source, name: Path) -> npt.NDArray[np.uint8]:
    """Decode an upright mask of colours, HWC uint8 RGB, ignoring alpha. Raises ImageError."""
    with _image_errors(name, NO_MASK_FILE, "cannot be decoded", "export it again"), _open(source) as file:
        file.load()
        return np.asarray(_upright(file).convert("RGB"))


def _open(source: Source) -> ImageFile.ImageFile:
    """Open a file at its picture. Raises one of DAMAGED."""
    opened = _without_metadata(source)
    try:
        image = Image.open(opened)
    except UnidentifiedImageError as error:
        fault = find_fault(opened.read_bytes() if isinstance(opened, Path) else opened.getvalue(), FORMATS)
        raise ValueError("; ".join(filter(None, (fault.text, fault.remedy)))) from error
    try:
        _select_picture(image)
    except BaseException:
        image.close()
        raise
    return image


def _select_picture(image: ImageFile.ImageFile) -> None:
    if image.format != "TIFF":
        return
    # Without a name, Pillow does not map the file into memory, which ignores that an orientation swaps the sides.
    image.filename = ""
    if select_page(image) == 0 and has_sub_pages(image):
        raise ValueError("a TIFF with a thumbnail, as raw files of cameras")
    if kind := unreadable_kind(image):
        raise ValueError(f"a TIFF {kind}")


def _without_metadata(source: Source) -> Source:
    """The used part of a PNG, in memory; other sources unchanged. Raises ValueError as `without_metadata`."""
    if isinstance(source, io.BytesIO):
        return io.BytesIO(without_metadata(source.getvalue()))
    with source.open("rb") as file:
        start = file.read(len(SIGNATURE))
        if start != SIGNATURE:
            return source
        data = start + file.read()
    if is_of_ios(data):
        raise ValueError("a PNG of an iOS app (CgBI), which other programs do not read")
    return io.BytesIO(without_metadata(data))


def _check_range(image: Image.Image, name: Path, value_range: ValueRange | None) -> None:
    if not read_transparency(image):
        raise ImageError(
            f"{name}: a colour of 16 bits is marked as transparent, which is not supported; save the image with an "
            "alpha channel, or with 8 bits per channel"
        )
    if value_range is None and (numbers := undeclared_numbers(image)):
        low, high = np.percentile(stored_numbers(image, stored_dtype(image)), USUAL_VALUES)
        raise UndeclaredRangeError(name, numbers, float(low), float(high))
    if value_range not in (None, FULL_16_BITS) and is_16_bit_color(image):
        raise ImageError(
            f"{name}: only the upper 8 bits of colours with 16 bits can be read, and data.range is another range; "
            "scale the image to it and save it with 8 bits per channel"
        )


@contextmanager
def _image_errors(name: Path, missing: str, damaged: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ImageError(f"{name}: {missing}") from error
    except ImageError:
        raise
    except NotFiniteError as error:
        raise ImageError(f"{name}: {error}") from error
    except DAMAGED as error:
        raise ImageError(f"{name}: {damaged} ({error}); {remedy}") from error


def _stored_values(mask_HW: npt.NDArray[Any], stored_as: str) -> npt.NDArray[np.integer[Any]]:
    """Undo what Pillow does to grey of 1 to 8 bits: it stretches 2 and 4 bits, and inverts "white is zero"."""
    bits_and_flags = re.fullmatch(r"(?:L|1);?([24]?)(I?)R?", stored_as)
    if not bits_and_flags:
        return mask_HW
    bits, inverted = bits_and_flags.groups()
    if mask_HW.dtype == np.bool_:
        return (mask_HW ^ bool(inverted)).astype(np.uint8)
    stored_HW = ~mask_HW if inverted else mask_HW
    return stored_HW // np.uint8({"2": 85, "4": 17}.get(bits, 1))


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
