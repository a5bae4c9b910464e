"""The runs of a mask, column by column: all classes counted, summed over and encoded from one pass over the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.segmentation.inference.engine import Mask

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Runs:
    """Stretches of one class in the columns of a mask, which follow each other: COCO's order of pixels."""

    height: int
    width: int
    starts: Ints
    class_ids: Mask
    """Of each run."""

    @property
    def lengths(self) -> Ints:
        """Pixels of each run."""
        return np.diff(self.starts, append=self.height * self.width)

    def pixels(self, classes: int) -> Ints:
        """How many pixels each class has."""
        return np.bincount(self.class_ids, weights=self.lengths, minlength=classes).astype(np.int64)

    def sums(self, values_HW: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.float64]:
        """The sum of a map over the pixels of each class."""
        by_run = np.add.reduceat(values_HW.T.ravel(), self.starts, dtype=np.uint64)
        summed = np.bincount(self.class_ids, weights=by_run, minlength=classes)
        return np.asarray(summed, dtype=np.float64)

    def rle(self) -> dict[int, str]:
        """Every class that occurs, in COCO's compressed run-length encoding."""
        from pycocotools import mask as coco  # noqa: PLC0415 - 0.3 s that only JSON needs

        order = np.argsort(self.class_ids, kind="stable")
        found, firsts = np.unique(self.class_ids[order], return_index=True)
        size = [self.height, self.width]
        encoded: dict[int, str] = {}
        for class_id, runs in zip(found.tolist(), np.split(order, firsts[1:]), strict=True):
            unpacked: Any = {"size": size, "counts": self._counts(runs)}
            packed: Any = coco.frPyObjects(unpacked, *size)
            encoded[class_id] = packed["counts"].decode("ascii")
        return encoded

    def _counts(self, runs: Ints) -> npt.NDArray[np.uint32]:
        """Lengths outside and inside of a class by turns, beginning outside."""
        borders = np.stack([self.starts[runs], self.starts[runs] + self.lengths[runs]], axis=1).ravel()
        counts = np.diff(borders, prepend=0, append=self.height * self.width)
        return (counts if counts[-1] else counts[:-1]).astype(np.uint32)


def runs_of(mask_HW: Mask) -> Runs:
    """The runs of a mask of class ids, uint8 or uint16 [H, W]."""
    height, width = mask_HW.shape
    pixels = mask_HW.T.ravel()
    starts = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate([np.zeros(1, dtype=np.int64), starts])
    return Runs(height, width, starts, pixels[starts])
