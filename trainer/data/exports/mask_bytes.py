"""Encode masks as PNG."""

# H W pixels, 3 = RGB

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.data.mask_encoding import Color
from trainer.data.mask_file import write_mask


def grey_png(mask_HW: npt.NDArray[np.uint8 | np.uint16]) -> bytes:
    """Encode stored values [H, W] as grey of 8 or 16 bits."""
    return _png(mask_HW)


def palette_png(mask_HW: npt.NDArray[np.uint8 | np.uint16], colors: Sequence[Color]) -> bytes:
    """Encode stored values [H, W] as `write_mask` does: 8 bits with a palette, 16 bits as grey."""
    write_mask(sink := BytesIO(), mask_HW, colors)
    return sink.getvalue()


def color_png(mask_HW: npt.NDArray[np.integer[Any]], colors: Sequence[Color]) -> bytes:
    """Encode ids [H, W], positions in `colors`, as these colours."""
    return _png(np.array(colors, dtype=np.uint8)[mask_HW])


def _png(values: npt.NDArray[np.uint8 | np.uint16]) -> bytes:
    sink = BytesIO()
    Image.fromarray(values).save(sink, "PNG")
    return sink.getvalue()
