"""Id masks from what an SDK reads: regions by label, painted one after the other.

Needs NumPy only: it runs in the virtual environment of each SDK, as `READER EXPORT TARGET NAME ...` with the names of
the classes in the order of their ids.
"""

# H W pixels

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

IGNORED, IGNORED_LABELS = 255, ("__ignore__", "ignored")


class Painting:
    """Collects the masks of one form. Without a region, a pixel is background, class 0."""

    def __init__(self) -> None:
        self.export, self._target, *self._names = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]

    def id_of(self, label: str) -> int:
        """Class id, or IGNORED."""
        return IGNORED if label in IGNORED_LABELS else self._names.index(label)

    def paint(self, name: str, size: tuple[int, int], regions: Iterable[tuple[str, npt.NDArray[Any]]]) -> None:
        """Save the mask of an image of a size (height, width) from pairs of label and mask [H, W]."""
        ids_HW = np.zeros(size, dtype=np.uint8)
        for label, mask_HW in regions:
            ids_HW[np.asarray(mask_HW) > 0] = self.id_of(label)
        self.save(name, ids_HW)

    def save(self, name: str, ids_HW: npt.NDArray[np.uint8]) -> None:
        """Save ids [H, W] as TARGET/NAME.npy."""
        target = self._target / f"{name}.npy"
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, ids_HW)
