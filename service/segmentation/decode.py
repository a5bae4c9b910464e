"""Decode an uploaded image to RGB pixels, after its header was checked against the limits.

The rules, in order:

| input                       | result                                                                               |
|-----------------------------|--------------------------------------------------------------------------------------|
| more bytes than allowed     | 413                                                                                  |
| not one of FORMATS          | 415                                                                                  |
| several frames or pages     | 415: the service cannot know which one is meant. A JPEG with previews or gain maps   |
|                             | (MPO) gives its main picture; a TIFF's overviews, thumbnails and masks do not count. |
| more pixels than allowed    | 413, from the header alone                                                           |
| truncated or damaged        | 400, with the damage                                                                 |
| PNG of an iOS app (CgBI)    | 415                                                                                  |
| PNG of very many chunks     | 400: each takes time                                                                 |
| unused metadata             | ignored, however large or damaged it is                                              |
| EXIF orientation            | applied, so the mask is upright; a broken EXIF block is ignored                      |
| 16 bits, grey               | scaled by the model's value range; without one, the upper 8 bits are kept            |
| 16 bits, colour             | the upper 8 bits are kept; with a value range other than 0 to 65535: 415             |
| floats, 32 bits, 12 bits,   | scaled by the model's value range; without one: 415. NaN counts as damage            |
| signed integers             |                                                                                      |
| other numbers or bands      | 415, with what the file holds, such as 64-bit floats or 5 bands                      |
| palette                     | looked up, with its transparency                                                     |
| 1, 2 or 4 bits, grey        | copied to all three channels                                                         |
| transparent colour, 16 bits | 415: Pillow compares it with 8 bits                                                  |
| alpha                       | composited on white, as browsers do; hidden colours stay hidden                      |
| fourth band of a GeoTIFF    | ignored, unless it is premultiplied alpha: GDAL marks every fourth band as alpha     |
| CMYK, YCbCr, LAB            | converted by Pillow (including Adobe's inverted CMYK)                                |

Training images are decoded by the same rules.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from service.errors import BadInput, ImageTooLarge, ImageUnreadable, ImageUnsupported
from service.segmentation.formats.open_errors import CONVERT, find_fault
from service.segmentation.formats.png_chunks import is_of_ios, without_metadata
from service.segmentation.formats.rgb import (
    FULL_16_BITS,
    NotFiniteError,
    ValueRange,
    is_16_bit_color,
    read_transparency,
    rgb_conversion,
    undeclared_numbers,
)
from service.segmentation.formats.tiff_tags import (
    fourth_band_is_alpha,
    has_sub_pages,
    select_page,
    tile_pixels,
    unreadable_kind,
)
from service.upload_kinds import recognise

Pixels = npt.NDArray[np.uint8]

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    # A JPEG followed by more JPEGs: previews and gain maps of phones.
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
}
EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/bmp": "bmp",
    "image/tiff": "tif",
    "image/avif": "avif",
}
FORMATS = [name for name in MEDIA_TYPES if name != "MPO"]

ORIENTATION = 0x0112
# Transposition that makes each EXIF orientation upright.
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where a PNG may hold an orientation: a chunk, or a text with EXIF or XMP.
PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
SWAPPED = {5, 6, 7, 8}
# Orientations whose first row becomes the last row or column.
REVERSED = {3, 4, 6, 7}
# A progressive JPEG has about ten scans. Each costs a pass over all pixels.
MAX_SCANS, SCAN = 100, b"\xff\xda"
# Pillow decodes run-length BMPs in Python: this many bytes hold the GIL for a second.
MAX_RLE_BYTES = 2 * 2**20
# Memory per pixel while decoding, as measured: 7 bytes, AVIF 12, WebP 16.
PIXEL_BYTES = 17
# Images are converted to upright RGB in strips of this many pixels; most are one strip.
STRIP_PIXELS = 2**19
# Upper bytes below which all values of a 16-bit image are below 4096: those of 12-bit numbers.
NEARLY_BLACK = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on an image: encoded bytes, and pixels."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Header:
    """Header of an image. Width and height are pixels of the upright view."""

    media_type: str
    width: int
    height: int
    orientation: int
    """EXIF orientation of the stored picture, 1 to 8; 1: upright."""
    ignored: str | None = None
    """What was not used: "fourth band" of a GeoTIFF."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Upright pixels (uint8 [H, W, 3], RGB, contiguous) and the header of the file."""

    image_HW3: Pixels
    header: Header
    is_nearly_black: bool = False
    """Whether the file stores 16 bits without a value range, and no value reaches 4096."""


class EncodedImage:
    """An image within the limits; `decode` reads its pixels, once."""

    def __init__(self, data: bytes, limits: Limits, value_range: ValueRange | None = None) -> None:
        """Check format and size; decode no pixels. `value_range` is that of the model.

        Raises:
            ImageTooLarge: More bytes or pixels than the limits allow.
            ImageUnsupported: The format, or this variant of it, is not supported.
            ImageUnreadable: The header is damaged.
        """
        if len(data) > limits.max_bytes:
            raise ImageTooLarge(
                f"The image has {len(data)} bytes and {limits.max_bytes} are allowed: compress it, or raise "
                "MASKLOOP_MAX_IMAGE_BYTES."
            )
        self._data = _used_part(data)
        self._value_range = value_range
        self._image = _open(self._data, limits)
        try:
            _check(self._image, data, limits)
            _check_values(self._image, value_range)
        except BadInput:
            raise
        except Exception as error:
            raise _pillow_error(error, "image is damaged or incomplete", data) from None
        # Asked here: a decoded image no longer says it.
        self._is_16_bit = self._image.mode.startswith("I;16") or is_16_bit_color(self._image)
        self.decode_bytes = PIXEL_BYTES * self._image.width * self._image.height
        """Upper bound of the memory that `header` and `decode` use."""

    @cached_property
    def header(self) -> Header:
        """The header. Read it in a thread: Pillow decodes a PNG whose metadata is behind its pixels."""
        width, height = self._image.size
        orientation = orientation_of(self._image, self._data)
        if self._transposition(orientation) in SWAPPED:
            width, height = height, width
        ignores_band = self._image.mode == "RGBA" and not fourth_band_is_alpha(self._image)
        ignored = "fourth band" if ignores_band else None
        return Header(MEDIA_TYPES[str(self._image.format)], width, height, orientation, ignored)

    def check_pixels(self) -> Header:
        """Check that `decode` succeeds, for a part of its cost, and return the header. Call one of both. Raises as it.

        A JPEG is decoded at an eighth of its size: the same bits are parsed, without most of the transform.
        """
        if self._image.format not in ("JPEG", "MPO"):
            return self.decode().header
        try:
            header = self.header
            width, height = self._image.size
            self._image.draft(None, (max(1, width // 8), max(1, height // 8)))
            self._image.load()
        except Exception as error:
            raise _pillow_error(error, "image is damaged or incomplete", self._data) from None
        finally:
            self._image.close()
        return header

    def decode(self) -> DecodedImage:
        """Decode the pixels by the rules of this module.

        Raises:
            ImageTooLarge: The machine lacks the memory.
            ImageUnreadable: Damaged or truncated.
        """
        try:
            header = self.header
            self._image.load()
            turn = self._transposition(header.orientation)
            image_HW3 = _upright(self._image, turn, self._value_range)
            is_dark = self._is_16_bit and self._value_range is None and image_HW3.max() < NEARLY_BLACK
            return DecodedImage(image_HW3, header, bool(is_dark))
        except Exception as error:
            raise _pillow_error(error, "image is damaged or incomplete", self._data) from None
        finally:
            # Frees Pillow's copy of the pixels while the request waits for its inference.
            self._image.close()

    def _transposition(self, orientation: int) -> int:
        # Pillow reports the upright size of a TIFF, and makes it upright when it loads the pixels.
        return 1 if self._image.format == "TIFF" else orientation


def decode(data: bytes, limits: Limits, value_range: ValueRange | None = None) -> DecodedImage:
    """Parse the header and decode the pixels. Raises as `EncodedImage`."""
    return EncodedImage(data, limits, value_range).decode()


def _used_part(data: bytes) -> bytes:
    if is_of_ios(data):
        raise ImageUnsupported(f"The upload {recognise(data)}.")
    try:
        return without_metadata(data)
    except ValueError as error:
        if kind := recognise(data):
            raise ImageUnreadable(f"The upload {kind}.") from None
        raise ImageUnreadable(f"The PNG is damaged ({error}): send the whole file again, or save it again.") from None


def _open(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise ImageTooLarge(_too_many_pixels("far more", limits)) from None
    except MemoryError as error:
        raise _pillow_error(error, "", data) from None
    except Exception:
        fault = find_fault(data, FORMATS)
    # The tags of a TIFF of another kind were read: it is not a changed file.
    is_sound = fault.cause == "kind" and data[:2] in (b"II", b"MM")
    if not is_sound and (kind := recognise(data)):
        raise ImageUnsupported(f"The upload {kind}.")
    if fault.cause == "damage":
        raise ImageUnreadable(f"The {fault.text}: send the whole file again, or save it again.")
    raise ImageUnsupported(f"The file is {fault.text}: {fault.remedy or 'convert the image to one of them'}.")


def _pillow_error(error: Exception, what: str, data: bytes) -> BadInput:
    """Convert an error of Pillow, which raises many types for damaged files, to an input error."""
    if isinstance(error, MemoryError):
        return ImageTooLarge("The machine lacks the memory to decode this image: scale it down.")
    if isinstance(error, NotFiniteError):
        return ImageUnreadable(f"The image cannot be used: {error}.")
    kind = recognise(data)
    return ImageUnreadable(f"The upload {kind}." if kind else f"The {what} ({error}): send the whole file again.")


def _check(image: ImageFile.ImageFile, data: bytes, limits: Limits) -> None:
    # Not `n_frames`, which would read all pages of a TIFF.
    frames, tile = _frames(image), tile_pixels(image)
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageTooLarge(_too_many_pixels(f"{width}x{height}", limits))
    if frames > 1:
        raise ImageUnsupported("The file holds several frames: send the one that you mean as a file of its own.")
    if frames == 0 and has_sub_pages(image):
        raise ImageUnsupported("The file is a TIFF with a thumbnail, as raw files of cameras: send a developed image.")
    if tile > limits.max_pixels:
        raise ImageTooLarge(_too_many_pixels(f"tiles of {tile}", limits))
    if "progressive" in image.info and data.count(SCAN) > MAX_SCANS:
        raise ImageUnreadable(f"The JPEG has more than {MAX_SCANS} scans: save it again, baseline or progressive.")
    if image.format == "BMP" and image.info.get("compression") in (1, 2) and len(data) > MAX_RLE_BYTES:
        raise ImageTooLarge(f"A run-length encoded BMP may have {MAX_RLE_BYTES} bytes: save it as PNG.")


def _frames(image: ImageFile.ImageFile) -> int:
    """Number of pictures, counted up to 2; the first is selected."""
    if image.format == "TIFF":
        return select_page(image)
    return 2 if getattr(image, "is_animated", False) and image.format != "MPO" else 1


def _check_values(image: Image.Image, value_range: ValueRange | None) -> None:
    if kind := unreadable_kind(image):
        raise ImageUnsupported(f"The file is a TIFF {kind}.")
    if not read_transparency(image):
        raise ImageUnsupported(
            "The PNG marks a colour of 16 bits as transparent, which is not supported: save it with an alpha channel, "
            "or with 8 bits per channel."
        )
    if value_range is None and (numbers := undeclared_numbers(image)):
        raise ImageUnsupported(
            f"The pixels are {numbers}, and the model does not declare which values are black and white: train it "
            f"with data.range = [BLACK, WHITE] in the recipe, or {CONVERT}."
        )
    if value_range not in (None, FULL_16_BITS) and is_16_bit_color(image):
        raise ImageUnsupported(
            "Only the upper 8 bits of colours with 16 bits can be read, and the model declares another range of "
            f"values: scale the image to that range and {CONVERT}."
        )


def _too_many_pixels(found: str, limits: Limits) -> str:
    return (
        f"The image has {found} pixels and {limits.max_pixels} are allowed: scale it down, or raise "
        "MASKLOOP_MAX_IMAGE_PIXELS."
    )


def orientation_of(image: Image.Image, data: bytes) -> int:
    """EXIF orientation, 1 to 8, of an image that was opened from `data`; 1 if it is missing or broken."""
    # Pillow would decode a whole PNG to look for metadata behind its pixels.
    if image.format == "PNG" and "exif" not in image.info and not any(sign in data for sign in PNG_EXIF):
        return 1
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a broken EXIF block raises errors of many types; the picture may still be fine
        return 1
    return value if isinstance(value, int) and value in TRANSPOSITIONS else 1


def _upright(image: Image.Image, orientation: int, value_range: ValueRange | None) -> Pixels:
    """Convert a decoded image to upright RGB, strip by strip: whole images would need a copy per step."""
    width, height = image.size
    upright_HW3 = np.empty((width, height, 3) if orientation in SWAPPED else (height, width, 3), np.uint8)
    to_rgb = rgb_conversion(image, value_range)
    for top, strip in _strips(image):
        rgb = to_rgb(strip)
        turned = rgb.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else rgb
        first = height - top - strip.height if orientation in REVERSED else top
        lines = slice(first, first + strip.height)
        upright_HW3[(slice(None), lines) if orientation in SWAPPED else lines] = np.asarray(turned)
    return upright_HW3


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield strips of rows with the number of their first row."""
    rows = max(1, STRIP_PIXELS // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))
