"""Encode masks and confidence maps as PNG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.segmentation.inference.predictor import Mask
from service.segmentation.output.class_table import ClassTable

# zlib's Z_RLE strategy (3) at level 1 is as fast as the default one, twice as fast for noisy masks, and gives half to
# two thirds of the size (tests/benchmarks/png_level.py).
PNG_LEVEL, PNG_STRATEGY = 1, 3
# Higher levels take two to four times as long for a tenth less.
CONFIDENCE_LEVEL = 1


def mask_png(mask_HW: Mask, class_table: ClassTable) -> bytes:
    """Encode a mask, uint8 or uint16 [H, W], as a PNG whose pixel values are the class ids.

    The PNG is indexed, with the class colours as palette; above 256 classes it is 16-bit grey.
    """
    image = Image.fromarray(mask_HW)
    if mask_HW.dtype == np.uint8:
        image.putpalette(palette(class_table).tobytes())
    return encode_image(image, "PNG", compress_level=PNG_LEVEL, compress_type=PNG_STRATEGY)


def confidence_png(confidence_HW: npt.NDArray[np.uint8]) -> bytes:
    """Encode the confidence of each pixel as a grey PNG, 255 = 1.0."""
    return encode_image(Image.fromarray(confidence_HW), "PNG", compress_level=CONFIDENCE_LEVEL)


def keep_classes(mask_HW: Mask, classes: frozenset[int] | None, class_table: ClassTable) -> Mask:
    """Set pixels of other classes than `classes` (None: keep all) to the ignore value, usually 255.

    The mask keeps its type (uint8 or uint16 [H, W]) unless the ignore value needs uint16.
    """
    if classes is None:
        return mask_HW
    values = np.full(len(class_table.names), class_table.ignore_index, dtype=np.uint16)
    values[list(classes)] = list(classes)
    if mask_HW.dtype == np.uint8 and class_table.ignore_index <= 255:
        return values.astype(np.uint8)[mask_HW]
    return values[mask_HW]


def palette(class_table: ClassTable) -> npt.NDArray[np.uint8]:
    """Return the colours of the first 256 classes, uint8 [256, 3]; unused entries are black."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(class_table.colors)] = class_table.colors[:256]
    return colors


def encode_image(image: Image.Image, image_format: str, **options: int) -> bytes:
    """Encode an image with Pillow."""
    sink = io.BytesIO()
    image.save(sink, format=image_format, **options)
    return sink.getvalue()
