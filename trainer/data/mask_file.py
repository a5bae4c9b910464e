"""Write a mask as PNG."""

# H W pixels

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.data.mask_encoding import Color


def write_mask(target: Path | BytesIO, mask_HW: npt.NDArray[np.integer[Any]], colors: Sequence[Color]) -> None:
    """Write stored values [H, W]: uint8 with a palette of these colours, white for other values; uint16 as grey."""
    image = Image.fromarray(mask_HW)
    if mask_HW.dtype == np.uint8:
        parts = [part for color in colors for part in color]
        image.putpalette(parts + [255] * (3 * 256 - len(parts)))
    image.save(target, "PNG")
