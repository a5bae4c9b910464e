"""An answer: what is where, and how sure that is."""

# H W pixels

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model said about one image."""

    mask_HW: Mask
    """Class ids, uint8 or (above 256 classes) uint16, of the image's size."""
    confidence_HW: npt.NDArray[np.uint8]
    """How sure it is of each pixel: 255 = 1.0."""
    scale: float = 1.0
    """Below 1: the image was too large, was reduced to this part of its sides, and the answer enlarged again."""
