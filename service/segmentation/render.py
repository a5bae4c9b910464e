"""Pictures of an answer: the mask itself as an indexed PNG, and the overlay for people."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.segmentation.decode import Pixels
from service.segmentation.engine import Mask
from service.segmentation.legend import Legend

# Runs are what masks are made of: the RLE strategy takes less time than level 1 without it and gives smaller files than
# level 6 (tests/benchmarks/png_level.py). 3 is zlib's Z_RLE, which Python's own zlib does not name.
PNG_LEVEL, PNG_STRATEGY = 1, 3
JPEG_QUALITY = 90
OPACITY = 0.5


def mask_png(mask_HW: Mask, legend: Legend) -> bytes:
    """The mask as a PNG whose pixel values are class ids.

    Up to 256 classes it is indexed, with the class colours as its palette; above, it is grey with 16 bits.

    Args:
        mask_HW: uint8 or uint16 [H, W], class ids.
        legend: The colours.
    """
    image = Image.fromarray(mask_HW)
    if mask_HW.dtype == np.uint8:
        image.putpalette(_palette(legend).tobytes())
    return _saved(image, "PNG", compress_level=PNG_LEVEL, compress_type=PNG_STRATEGY)


def overlay_jpeg(image_HW3: Pixels, mask_HW: Mask, legend: Legend) -> bytes:
    """The image with the class colours over it and white lines where one class ends, as a JPEG.

    Args:
        image_HW3: uint8 [H, W, 3], RGB.
        mask_HW: uint8 or uint16 [H, W], class ids below the number of colours.
        legend: The colours.
    """
    colors = np.asarray(legend.colors, dtype=np.uint8)
    tint = Image.fromarray(colors[np.minimum(mask_HW, len(colors) - 1)])
    blended = np.array(Image.blend(Image.fromarray(image_HW3), tint, OPACITY))
    blended[_borders(mask_HW)] = 255
    return _saved(Image.fromarray(blended), "JPEG", quality=JPEG_QUALITY)


def _palette(legend: Legend) -> npt.NDArray[np.uint8]:
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(legend.colors)] = legend.colors[:256]
    return palette


def _borders(mask_HW: Mask) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class."""
    border = np.zeros(mask_HW.shape, dtype=bool)
    border[:, :-1] |= mask_HW[:, :-1] != mask_HW[:, 1:]
    border[:-1] |= mask_HW[:-1] != mask_HW[1:]
    return border


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format=kind, **options)
    return sink.getvalue()
