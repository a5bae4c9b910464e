"""From the bytes that a client sent to the pixels that the graph takes.

The rules, in the order they are applied:

| what comes in            | what becomes of it                                                                    |
|--------------------------|---------------------------------------------------------------------------------------|
| more bytes than allowed  | refused, 413                                                                          |
| none of FORMATS          | refused, 415                                                                          |
| several frames or pages  | refused, 415: which one is meant? (Of a JPEG with previews or gain maps: the picture.) |
| more pixels than allowed | refused, 413, from the header alone: nothing has been decoded                         |
| truncated, damaged       | refused, 400                                                                          |
| EXIF orientation         | applied: the mask fits the picture as every viewer shows it; a broken EXIF is ignored |
| 12 and 16 bits a channel | the upper 8 bits are kept (Pillow would clip everything above 255 to white)           |
| 32-bit integers, floats  | scaled by the range that `_range` finds; NaN is damage                                |
| palette                  | looked up, with its transparency                                                      |
| 1-bit, grey              | the one channel three times                                                           |
| alpha of any kind        | composited on white, as a browser page does; hidden colours never come through        |
| CMYK, YCbCr, LAB         | converted by Pillow (Adobe's inverted CMYK included)                                  |

The training pool is read by the same rules, so that a model sees in training what it will see here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from service.errors import BadInput, ImageTooLarge, ImageUnreadable, ImageUnsupported

Pixels = npt.NDArray[np.uint8]

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    # What Pillow calls a JPEG with more JPEGs behind it: previews and gain maps of phones. The first is the picture.
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
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"]

# Tags of EXIF and TIFF.
BITS, ORIENTATION, TILE_WIDTH, TILE_LENGTH = 0x0102, 0x0112, 0x0142, 0x0143
# How a picture of each EXIF orientation is turned to stand upright; 1 stands.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# How a PNG may hold an orientation: a chunk, or a text with EXIF or XMP in it.
PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
# Orientations 5 to 8 lay the picture on its side: width and height change places.
SIDEWAYS = {5, 6, 7, 8}
# Of these the first row becomes the last row or column.
FROM_THE_END = {3, 4, 6, 7}
# A progressive JPEG has about ten. Each costs a pass over all pixels, and a file of few bytes may hold many thousands.
MAX_SCANS, SCAN = 100, b"\xff\xda"
# Pillow decodes the run lengths of a BMP in Python: these take a second, and what else runs waits at every turn.
MAX_RLE_BYTES = 2 * 2**20
# For each pixel while it is decoded, as measured: Pillow's 4 and the 3 that come of it; of an AVIF 12, of a WebP 16.
PIXEL_BYTES = 17
# Of a decoded image, while its pixels become RGB and upright; most images are no larger.
PIXELS_AT_ONCE = 2**19


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may weigh: encoded bytes, and pixels (width times height)."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says. Width and height are pixels of the upright view."""

    media_type: str
    width: int
    height: int
    orientation: int
    """EXIF's, 1 to 8, of the picture in the file; 1: it stands upright."""


def inspect(data: bytes, limits: Limits) -> Header:
    """Read the header of an image and hold it against the limits, without decoding a pixel.

    Raises:
        ImageTooLarge: More bytes or pixels than allowed.
        ImageUnsupported: No format, or no kind, that is taken.
        ImageUnreadable: The header is damaged.
    """
    with _open(data, limits) as image:
        width, height = image.size
        orientation = _orientation(image, data)
        # Pillow gives the size of a TIFF as it will be when turned.
        if orientation in SIDEWAYS and image.format != "TIFF":
            width, height = height, width
        return Header(MEDIA_TYPES[str(image.format)], width, height, orientation)


def decoding_cost(data: bytes, limits: Limits) -> int:
    """Bytes of memory that `decode` takes at most, by the header of the image. Raises as `inspect`."""
    with _open(data, limits) as image:
        return PIXEL_BYTES * image.width * image.height


def decode(data: bytes, limits: Limits) -> Pixels:
    """Decode an image by the table above.

    Returns:
        uint8 [H, W, 3], RGB, contiguous.

    Raises:
        ImageTooLarge: More bytes or pixels than allowed, or than there is memory for.
        ImageUnsupported: No format, or no kind, that is taken.
        ImageUnreadable: Damaged or truncated.
    """
    with _open(data, limits) as image:
        try:
            # Before the pixels: to load a TIFF turns it, and takes its orientation away.
            orientation = 1 if image.format == "TIFF" else _orientation(image, data)
            image.load()
            return _upright(image, orientation)
        except Exception as error:
            raise _refusal(error, "image is damaged or incomplete") from None


def _open(data: bytes, limits: Limits) -> Image.Image:
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"The image has {len(data)} bytes and {limits.max_bytes} are allowed: compress it, or raise "
            "MASKLOOP_MAX_IMAGE_BYTES."
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageUnsupported(f"This is none of {', '.join(FORMATS)}: convert the image to one of them.") from None
    except Image.DecompressionBombError:
        raise ImageTooLarge(_too_many_pixels("far more", limits)) from None
    except Exception as error:
        raise _refusal(error, "header of the image is damaged") from None
    _check(image, data, limits)
    return image


def _refusal(error: Exception, what: str) -> BadInput:
    """What Pillow raises about bytes from outside, of whatever type it is, is a matter of those bytes."""
    if isinstance(error, MemoryError):
        return ImageTooLarge("There is no memory to decode this image: scale it down.")
    return ImageUnreadable(f"The {what} ({error}): send the whole file again.")


def _check(image: Image.Image, data: bytes, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageTooLarge(_too_many_pixels(f"{width}x{height}", limits))
    try:
        # `n_frames` would walk through all pages of a TIFF; this stops after the first.
        several = getattr(image, "is_animated", False)
        tile_pixels = _tile_pixels(image)
    except Exception as error:
        raise _refusal(error, "image is damaged or incomplete") from None
    if several and image.format != "MPO":
        raise ImageUnsupported("The file holds several frames: send the one that is meant as a file of its own.")
    if tile_pixels > limits.max_pixels:
        raise ImageTooLarge(_too_many_pixels(f"tiles of {tile_pixels}", limits))
    if "progressive" in image.info and data.count(SCAN) > MAX_SCANS:
        raise ImageUnreadable(f"The JPEG has more than {MAX_SCANS} scans: save it again, baseline or progressive.")
    if image.format == "BMP" and image.info.get("compression") in (1, 2) and len(data) > MAX_RLE_BYTES:
        raise ImageTooLarge(f"A BMP of run lengths may have {MAX_RLE_BYTES} bytes: save it as PNG.")


def _tile_pixels(image: Image.Image) -> int:
    """Of one tile of a TIFF, which is decoded whole, however little of it the picture covers."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))


def _too_many_pixels(found: str, limits: Limits) -> str:
    return (
        f"The image has {found} pixels and {limits.max_pixels} in all are allowed: scale it down, or raise "
        "MASKLOOP_MAX_IMAGE_PIXELS."
    )


def _orientation(image: Image.Image, data: bytes) -> int:
    # Pillow would decode a whole PNG to look for what may stand behind its pixels.
    if image.format == "PNG" and "exif" not in image.info and not any(sign in data for sign in PNG_EXIF):
        return 1
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever a broken EXIF makes Pillow raise: the picture is whole
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def _upright(image: Image.Image, orientation: int) -> Pixels:
    """Turned pixels of a decoded image, strip by strip: each step on the way would copy the whole."""
    width, height = image.size
    upright_HW3 = np.empty((width, height, 3) if orientation in SIDEWAYS else (height, width, 3), np.uint8)
    to_rgb = _conversion(image)
    for top, strip in _strips(image):
        rgb = to_rgb(strip)
        turned = rgb.transpose(TURNS[orientation]) if orientation in TURNS else rgb
        first = height - top - strip.height if orientation in FROM_THE_END else top
        lines = slice(first, first + strip.height)
        upright_HW3[(slice(None), lines) if orientation in SIDEWAYS else lines] = np.asarray(turned)
    return upright_HW3


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Rows of an image, some at a time, and where they begin."""
    rows = max(1, PIXELS_AT_ONCE // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """What makes any strip of the image RGB: some need to know of the whole."""
    if image.mode.startswith("I;16"):
        # A grey TIFF of 12 bits has this mode too.
        return partial(_shifted, bits=4 if getattr(image, "tag_v2", {}).get(BITS) == (12,) else 8)
    if image.mode in ("I", "F"):
        low, high = _range(image)
        return partial(_scaled, low=low, high=high)
    return _rgb


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    # `convert` would copy what is RGB already.
    return image if image.mode == "RGB" else image.convert("RGB")


def _shifted(image: Image.Image, *, bits: int) -> Image.Image:
    return Image.fromarray((np.asarray(image) >> bits).astype(np.uint8)).convert("RGB")


def _range(image: Image.Image) -> tuple[float, float]:
    """The values that become black and white.

    The white of floats is 1, 255 or 65535, of integers 255 or 65535: the least that no value exceeds. Where values are
    negative or larger, the least of them is black and the greatest white.
    """
    low, high = np.inf, -np.inf
    for _, strip in _strips(image):
        values_HW = np.asarray(strip)
        # Unlike `min`, these keep NaN.
        low, high = float(np.minimum(low, values_HW.min())), float(np.maximum(high, values_HW.max()))
    if not np.isfinite(high - low):
        raise ValueError("its pixels are not all finite numbers")
    for white in (255.0, 65535.0) if image.mode == "I" else (1.0, 255.0, 65535.0):
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high


def _scaled(image: Image.Image, *, low: float, high: float) -> Image.Image:
    # 256 steps of equal width, which for whole numbers up to 65535 are their upper 8 bits.
    step = 255.999 / (high - low) if high > low else 0.0
    grey_HW = (np.asarray(image).astype(np.float64) - low) * step
    return Image.fromarray(grey_HW.astype(np.uint8)).convert("RGB")
