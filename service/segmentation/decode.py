"""From the bytes that a client sent to the pixels that the graph takes.

The rules, in the order they are applied:

| what comes in            | what becomes of it                                                                    |
|--------------------------|---------------------------------------------------------------------------------------|
| more bytes than allowed  | refused, 413                                                                          |
| not JPEG PNG WEBP BMP TIFF | refused, 415                                                                        |
| several frames or pages  | refused, 415: which one is meant? (Of a JPEG with previews or gain maps: the picture.) |
| more pixels than allowed | refused, 413, from the header alone: nothing has been decoded                         |
| truncated, damaged       | refused, 400                                                                          |
| EXIF orientation         | applied: the mask fits the picture as every viewer shows it; a broken EXIF is ignored |
| 16 bits a channel        | the upper 8 bits are kept (Pillow would clip everything above 255 to white)           |
| 32-bit integers, floats  | refused, 415: their range is not in the file                                          |
| palette                  | looked up, with its transparency                                                      |
| 1-bit, grey              | the one channel three times                                                           |
| alpha of any kind        | composited on white, as a browser page does; hidden colours never come through        |
| CMYK, YCbCr, LAB         | converted by Pillow (Adobe's inverted CMYK included)                                  |

The training pool is read by the same rules, so that a model sees in training what it will see here.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from service.errors import ImageTooLarge, ImageUnreadable, ImageUnsupported

Pixels = npt.NDArray[np.uint8]

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    # What Pillow calls a JPEG with more JPEGs behind it: previews and gain maps of phones. The first is the picture.
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/bmp": "bmp", "image/tiff": "tif"}
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF"]

WHITE = (255, 255, 255)
ORIENTATION = 0x0112
# Orientations 5 to 8 lay the picture on its side: width and height change places.
SIDEWAYS = {5, 6, 7, 8}
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error)


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


def inspect(data: bytes, limits: Limits) -> Header:
    """Read the header of an image and hold it against the limits, without decoding a pixel.

    Raises:
        ImageTooLarge: More bytes or pixels than allowed.
        ImageUnsupported: No format, or no kind, that is taken.
        ImageUnreadable: The header is damaged.
    """
    with _open(data, limits) as image:
        width, height = image.size
        if _orientation(image) in SIDEWAYS:
            width, height = height, width
        return Header(MEDIA_TYPES[str(image.format)], width, height)


def decode(data: bytes, limits: Limits) -> Pixels:
    """Decode an image by the table above.

    Returns:
        uint8 [H, W, 3], RGB, contiguous.

    Raises:
        ImageTooLarge: More bytes or pixels than allowed.
        ImageUnsupported: No format, or no kind, that is taken.
        ImageUnreadable: Damaged or truncated.
    """
    with _open(data, limits) as image:
        orientation = _orientation(image)
        try:
            image.load()
            rgb = _upright(_rgb(image), orientation)
        except DAMAGED as error:
            raise ImageUnreadable(f"The image is damaged or incomplete ({error}): send the whole file again.") from None
        return np.ascontiguousarray(rgb, dtype=np.uint8)


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
    except DAMAGED as error:
        raise ImageUnreadable(f"The header of the image is damaged ({error}): send the whole file again.") from None
    _check(image, limits)
    return image


def _check(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageTooLarge(_too_many_pixels(f"{width}x{height}", limits))
    try:
        # `n_frames` would walk through all pages of a TIFF; this stops after the first.
        several = getattr(image, "is_animated", False)
    except DAMAGED as error:
        raise ImageUnreadable(f"The image is damaged or incomplete ({error}): send the whole file again.") from None
    if several and image.format != "MPO":
        raise ImageUnsupported("The file holds several frames: send the one that is meant as a file of its own.")
    if image.mode in ("I", "F"):
        raise ImageUnsupported(f"Pixels of kind {image.mode!r} have no known range: send 8 or 16 bits a channel.")


def _too_many_pixels(found: str, limits: Limits) -> str:
    return (
        f"The image has {found} pixels and {limits.max_pixels} in all are allowed: scale it down, or raise "
        "MASKLOOP_MAX_IMAGE_PIXELS."
    )


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        return 1  # Pillow turns TIFFs by itself while it loads them, and gives their size as it will be then.
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except DAMAGED:
        return 1
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    # The image was converted since it was opened; what counts is the orientation that the file said.
    bare = Image.Exif()
    bare[ORIENTATION] = orientation
    image.info = {"exif": bare.tobytes()}
    return ImageOps.exif_transpose(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        page = Image.new("RGBA", rgba.size, (*WHITE, 255))
        return Image.alpha_composite(page, rgba).convert("RGB")
    return image.convert("RGB")
