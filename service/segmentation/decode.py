"""Decode an uploaded image to RGB pixels, after its header was checked against the limits.

The rules, in order:

| input                      | result                                                                                |
|----------------------------|---------------------------------------------------------------------------------------|
| more bytes than allowed    | 413                                                                                   |
| not one of FORMATS         | 415                                                                                   |
| several frames or pages    | 415: the service cannot know which one is meant. A JPEG with previews or gain maps    |
|                            | (MPO) gives its main picture.                                                         |
| more pixels than allowed   | 413, from the header alone                                                            |
| truncated or damaged       | 400                                                                                   |
| EXIF orientation           | applied, so the mask is upright; a broken EXIF block is ignored                       |
| 12 or 16 bits per channel  | the upper 8 bits are kept (Pillow would clip values above 255 to white)               |
| 32-bit integers, floats    | scaled by the range that `_value_range` finds; NaN counts as damage                   |
| palette                    | looked up, with its transparency                                                      |
| 1-bit, grey                | copied to all three channels                                                          |
| alpha                      | composited on white, as browsers do; hidden colours stay hidden                       |
| CMYK, YCbCr, LAB           | converted by Pillow (including Adobe's inverted CMYK)                                 |

Training images are decoded by the same rules.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from service.errors import BadInput, ImageTooLarge, ImageUnreadable, ImageUnsupported
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

BITS, ORIENTATION, TILE_WIDTH, TILE_LENGTH = 0x0102, 0x0112, 0x0142, 0x0143
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


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Upright pixels (uint8 [H, W, 3], RGB, contiguous) and the header of the file."""

    image_HW3: Pixels
    header: Header


class EncodedImage:
    """An image within the limits; `decode` reads its pixels, once."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        """Check format and size; decode no pixels.

        Raises:
            ImageTooLarge: More bytes or pixels than the limits allow.
            ImageUnsupported: The format, or this variant of it, is not supported.
            ImageUnreadable: The header is damaged.
        """
        self._data = data
        self._image = _open(data, limits)
        self.decode_bytes = PIXEL_BYTES * self._image.width * self._image.height
        """Upper bound of the memory that `header` and `decode` use."""

    @cached_property
    def header(self) -> Header:
        """The header. Read it in a thread: Pillow decodes a PNG whose metadata is behind its pixels."""
        width, height = self._image.size
        orientation = _orientation(self._image, self._data)
        if self._transposition(orientation) in SWAPPED:
            width, height = height, width
        return Header(MEDIA_TYPES[str(self._image.format)], width, height, orientation)

    def decode(self) -> DecodedImage:
        """Decode the pixels by the rules of this module.

        Raises:
            ImageTooLarge: The machine lacks the memory.
            ImageUnreadable: Damaged or truncated.
        """
        try:
            header = self.header
            self._image.load()
            return DecodedImage(_upright(self._image, self._transposition(header.orientation)), header)
        except Exception as error:
            raise _pillow_error(error, "image is damaged or incomplete", self._data) from None
        finally:
            # Frees Pillow's copy of the pixels while the request waits for its inference.
            self._image.close()

    def _transposition(self, orientation: int) -> int:
        # Pillow reports the upright size of a TIFF, and makes it upright when it loads the pixels.
        return 1 if self._image.format == "TIFF" else orientation


def decode(data: bytes, limits: Limits) -> DecodedImage:
    """Parse the header and decode the pixels. Raises as `EncodedImage`."""
    return EncodedImage(data, limits).decode()


def _open(data: bytes, limits: Limits) -> Image.Image:
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"The image has {len(data)} bytes and {limits.max_bytes} are allowed: compress it, or raise "
            "MASKLOOP_MAX_IMAGE_BYTES."
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if kind := recognise(data):
            raise ImageUnsupported(f"The upload {kind}.") from None
        raise ImageUnsupported(f"The file is not {', '.join(FORMATS)}: convert the image to one of them.") from None
    except Image.DecompressionBombError:
        raise ImageTooLarge(_too_many_pixels("far more", limits)) from None
    except Exception as error:
        raise _pillow_error(error, "header of the image is damaged", data) from None
    _check(image, data, limits)
    return image


def _pillow_error(error: Exception, what: str, data: bytes) -> BadInput:
    """Convert an error of Pillow, which raises many types for damaged files, to an input error."""
    if isinstance(error, MemoryError):
        return ImageTooLarge("The machine lacks the memory to decode this image: scale it down.")
    kind = recognise(data)
    return ImageUnreadable(f"The upload {kind}." if kind else f"The {what} ({error}): send the whole file again.")


def _check(image: Image.Image, data: bytes, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageTooLarge(_too_many_pixels(f"{width}x{height}", limits))
    try:
        # `n_frames` would read all pages of a TIFF; this stops after the first.
        has_frames = getattr(image, "is_animated", False)
        tile_pixels = _tile_pixels(image)
    except Exception as error:
        raise _pillow_error(error, "image is damaged or incomplete", data) from None
    if has_frames and image.format != "MPO":
        raise ImageUnsupported("The file holds several frames: send the one that you mean as a file of its own.")
    if tile_pixels > limits.max_pixels:
        raise ImageTooLarge(_too_many_pixels(f"tiles of {tile_pixels}", limits))
    if "progressive" in image.info and data.count(SCAN) > MAX_SCANS:
        raise ImageUnreadable(f"The JPEG has more than {MAX_SCANS} scans: save it again, baseline or progressive.")
    if image.format == "BMP" and image.info.get("compression") in (1, 2) and len(data) > MAX_RLE_BYTES:
        raise ImageTooLarge(f"A run-length encoded BMP may have {MAX_RLE_BYTES} bytes: save it as PNG.")


def _tile_pixels(image: Image.Image) -> int:
    """Pixels of one TIFF tile: it is decoded whole, however little of it the picture covers."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))


def _too_many_pixels(found: str, limits: Limits) -> str:
    return (
        f"The image has {found} pixels and {limits.max_pixels} are allowed: scale it down, or raise "
        "MASKLOOP_MAX_IMAGE_PIXELS."
    )


def _orientation(image: Image.Image, data: bytes) -> int:
    # Pillow would decode a whole PNG to look for metadata behind its pixels.
    if image.format == "PNG" and "exif" not in image.info and not any(sign in data for sign in PNG_EXIF):
        return 1
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a broken EXIF block raises errors of many types; the picture may still be fine
        return 1
    return value if isinstance(value, int) and value in TRANSPOSITIONS else 1


def _upright(image: Image.Image, orientation: int) -> Pixels:
    """Convert a decoded image to upright RGB, strip by strip: whole images would need a copy per step."""
    width, height = image.size
    upright_HW3 = np.empty((width, height, 3) if orientation in SWAPPED else (height, width, 3), np.uint8)
    to_rgb = _rgb_conversion(image)
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


def _rgb_conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Return the function that converts any strip to RGB; some need the range of the whole image."""
    if image.mode.startswith("I;16"):
        # A 12-bit grey TIFF has this mode, too.
        return partial(_shift_to_8_bits, bits=4 if getattr(image, "tag_v2", {}).get(BITS) == (12,) else 8)
    if image.mode in ("I", "F"):
        low, high = _value_range(image)
        return partial(_scale_to_8_bits, low=low, high=high)
    return _rgb


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    # `convert` would copy an RGB image.
    return image if image.mode == "RGB" else image.convert("RGB")


def _shift_to_8_bits(image: Image.Image, *, bits: int) -> Image.Image:
    return Image.fromarray((np.asarray(image) >> bits).astype(np.uint8)).convert("RGB")


def _value_range(image: Image.Image) -> tuple[float, float]:
    """Find the values that become black and white.

    White is the smallest of 1 (floats only), 255 and 65535 that no value exceeds. If values are negative or larger, the
    minimum becomes black and the maximum white.
    """
    low, high = np.inf, -np.inf
    for _, strip in _strips(image):
        values_HW = np.asarray(strip)
        # Unlike `min` and `max`, these propagate NaN.
        low, high = float(np.minimum(low, values_HW.min())), float(np.maximum(high, values_HW.max()))
    if not np.isfinite(high - low):
        raise ValueError("it has pixels that are not finite numbers")
    for white in (255.0, 65535.0) if image.mode == "I" else (1.0, 255.0, 65535.0):
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high


def _scale_to_8_bits(image: Image.Image, *, low: float, high: float) -> Image.Image:
    # 256 steps of equal size; for integers up to 65535 the result is their upper 8 bits.
    step = 255.999 / (high - low) if high > low else 0.0
    grey_HW = (np.asarray(image).astype(np.float64) - low) * step
    return Image.fromarray(grey_HW.astype(np.uint8)).convert("RGB")
