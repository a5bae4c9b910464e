"""Pictures of an answer for programs: the mask as an indexed PNG, the confidence as a grey one."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.segmentation.inference.engine import Mask
from service.segmentation.output.class_table import ClassTable

# Runs are what masks are made of. At level 1 the RLE strategy takes no longer than the usual one, for noisy masks half
# as long, and files have half to two thirds of the size (tests/benchmarks/png_level.py). 3 is zlib's Z_RLE.
PNG_LEVEL, PNG_STRATEGY = 1, 3
# Confidence is noise to a compressor: higher levels take two to four times as long for a tenth less.
CONFIDENCE_LEVEL = 1


def mask_png(mask_HW: Mask, legend: ClassTable) -> bytes:
    """The mask as a PNG whose pixel values are class ids.

    Up to 256 classes it is indexed, with the class colours as its palette; above, it is grey with 16 bits.

    Args:
        mask_HW: uint8 or uint16 [H, W], class ids.
        legend: The colours.
    """
    image = Image.fromarray(mask_HW)
    if mask_HW.dtype == np.uint8:
        image.putpalette(palette(legend).tobytes())
    return saved(image, "PNG", compress_level=PNG_LEVEL, compress_type=PNG_STRATEGY)


def confidence_png(confidence_HW: npt.NDArray[np.uint8]) -> bytes:
    """The confidence of each pixel as a grey PNG, 255 = 1.0."""
    return saved(Image.fromarray(confidence_HW), "PNG", compress_level=CONFIDENCE_LEVEL)


def restricted(mask_HW: Mask, only: frozenset[int] | None, legend: ClassTable) -> Mask:
    """The mask with the classes that do not count set to the ignore value.

    Args:
        mask_HW: uint8 or uint16 [H, W], class ids.
        only: The classes that count; None: all.
        legend: Knows the ignore value, as a rule 255.

    Returns:
        The same type, or uint16 where the ignore value needs it.
    """
    if only is None:
        return mask_HW
    values = np.full(len(legend.names), legend.ignore_index, dtype=np.uint16)
    values[list(only)] = list(only)
    if mask_HW.dtype == np.uint8 and legend.ignore_index <= 255:
        return values.astype(np.uint8)[mask_HW]
    return values[mask_HW]


def palette(legend: ClassTable) -> npt.NDArray[np.uint8]:
    """The colours of the first 256 classes, uint8 [256, 3]; black where there are fewer."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(legend.colors)] = legend.colors[:256]
    return colors


def saved(image: Image.Image, kind: str, **options: int) -> bytes:
    """An image as a file of this format."""
    sink = io.BytesIO()
    image.save(sink, format=kind, **options)
    return sink.getvalue()
