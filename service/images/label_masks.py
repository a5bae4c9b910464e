"""Label masks: one channel, a pixel is a class id, and nothing else is guessed."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.errors import MaskInvalid

Ids = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

# Where the bit depth stands in a PNG: signature 8, length and name of IHDR 8, width 4, height 4.
BIT_DEPTH_AT = 24
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_mask(data: bytes, *, width: int, height: int, classes: int, ignore_index: int) -> Ids:
    """Read a label mask that a client sent.

    Palette indices and grey values are taken as they stand in the file: colours are never looked up, nor are greys of
    less than 8 bits stretched.

    Args:
        data: A PNG of one channel: palette, or grey of 1 to 16 bits.
        width: Pixels that the mask must have: its image's, in the upright view.
        height: See `width`.
        classes: Ids must be below this,
        ignore_index: or exactly this.

    Returns:
        uint8 [H, W], or uint16 where ids above 255 occur.

    Raises:
        MaskInvalid: Not such a PNG, another size, or an id that means nothing.
    """
    if not data.startswith(PNG_SIGNATURE):
        raise MaskInvalid("The mask is not a PNG: save it as PNG, since lossy formats change class ids.")
    ids = _indices(data, (width, height))
    found = np.unique(ids)
    unknown = [int(i) for i in found if i >= classes and i != ignore_index]
    if unknown:
        raise MaskInvalid(
            f"The mask holds the ids {unknown[:8]} and the classes are 0..{classes - 1} (or {ignore_index}, "
            "ignored): renumber the mask."
        )
    return ids if int(found.max()) > 255 else ids.astype(np.uint8)


def encode_mask(ids: Ids) -> bytes:
    """Class ids [H, W] as a grey PNG, 8 bits a pixel (16 where the ids need it): the form that the trainer reads."""
    sink = io.BytesIO()
    Image.fromarray(ids).save(sink, format="PNG", compress_level=1)
    return sink.getvalue()


def _indices(data: bytes, size: tuple[int, int]) -> Ids:
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        _check(image, size)
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MaskInvalid(f"The mask is a damaged PNG ({error}): save it again.") from None
    if image.mode.startswith("I;16"):
        return np.asarray(image, dtype=np.uint16)
    ids = np.asarray(image, dtype=np.uint8)
    if image.mode == "L" and data[BIT_DEPTH_AT] < 8:
        # Pillow stretches 2- and 4-bit greys over 0..255; here 1 of 4 bits means class 1, not grey 17.
        ids = ids // np.uint8(255 // (2 ** data[BIT_DEPTH_AT] - 1))
    return ids


def _check(image: Image.Image, size: tuple[int, int]) -> None:
    """Before a pixel is decoded: the size and the one channel."""
    if image.size != size:
        raise MaskInvalid(
            f"The mask has {image.size[0]}x{image.size[1]} pixels and its image, upright, {size[0]}x{size[1]}: "
            "draw the mask on the image as viewers show it."
        )
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I;16"):
        raise MaskInvalid(f"The mask is {image.mode} and must have one channel: a pixel is a class id, not a colour.")
