"""Column-wise runs of a mask; from them the pixel count, the sum of a map and the COCO RLE of every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.segmentation.inference.predictor import Mask

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PixelRuns:
    """Runs of equal pixels in column-major order, as in COCO."""

    height: int
    width: int
    starts: Ints
    """Index of the first pixel of each run."""
    class_ids: Mask
    """Class id of each run, uint8 or uint16 [runs]."""

    @property
    def lengths(self) -> Ints:
        """Number of pixels of each run."""
        return np.diff(self.starts, append=self.height * self.width)

    def pixel_counts(self, classes: int) -> Ints:
        """Count the pixels of each class."""
        return np.bincount(self.class_ids, weights=self.lengths, minlength=classes).astype(np.int64)

    def sums(self, values_HW: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.float64]:
        """Sum a map over the pixels of each class."""
        by_run = np.add.reduceat(values_HW.T.ravel(), self.starts, dtype=np.uint64)
        summed = np.bincount(self.class_ids, weights=by_run, minlength=classes)
        return np.asarray(summed, dtype=np.float64)

    def rle(self) -> dict[int, str]:
        """Encode every class that occurs in COCO's compressed run-length encoding."""
        from pycocotools import mask as coco  # noqa: PLC0415 - takes 0.3 s to import, and only JSON needs it

        order = np.argsort(self.class_ids, kind="stable")
        found, firsts = np.unique(self.class_ids[order], return_index=True)
        size = [self.height, self.width]
        encoded: dict[int, str] = {}
        for class_id, runs in zip(found.tolist(), np.split(order, firsts[1:]), strict=True):
            uncompressed: Any = {"size": size, "counts": self._counts(runs)}
            compressed: Any = coco.frPyObjects(uncompressed, *size)
            encoded[class_id] = compressed["counts"].decode("ascii")
        return encoded

    def _counts(self, runs: Ints) -> npt.NDArray[np.uint32]:
        """Return the alternating lengths outside and inside a class, outside first."""
        borders = np.stack([self.starts[runs], self.starts[runs] + self.lengths[runs]], axis=1).ravel()
        counts = np.diff(borders, prepend=0, append=self.height * self.width)
        return (counts if counts[-1] else counts[:-1]).astype(np.uint32)


def find_runs(mask_HW: Mask) -> PixelRuns:
    """Find the runs of a mask of class ids, uint8 or uint16 [H, W]."""
    height, width = mask_HW.shape
    pixels = mask_HW.T.ravel()
    starts = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate([np.zeros(1, dtype=np.int64), starts])
    return PixelRuns(height, width, starts, pixels[starts])
