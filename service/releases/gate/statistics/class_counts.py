"""Pixels of each class on each image, from which every IoU is computed. A confusion matrix an image is not needed."""

# I images, U units, N units or draws, K classes, H W pixels

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Counted pixels by image and class, each int64 [I, K]; pixels whose label is `ignore_index` are not counted."""

    tp_IK: Counts
    """Pixels of the class that the model found."""
    truth_IK: Counts
    """Pixels of the class in the label."""
    found_IK: Counts
    """Pixels to which the model gave the class."""

    def union(self) -> Counts:
        """Pixels of the class in the label or in the mask, int64 [I, K]."""
        return self.truth_IK + self.found_IK - self.tp_IK

    def iou(self) -> Values:
        """IoU of each class over all images, 0..1, float64 [K]; 0 for a class in neither label nor mask."""
        iou_K: Values = self.tp_IK.sum(axis=0) / np.maximum(self.union().sum(axis=0), 1)
        return iou_K

    def by_unit(self, unit_I: Indices) -> ClassCounts:
        """Sum the images of each unit; `unit_I` numbers them from 0. Returns counts [U, K]."""
        units = int(unit_I.max(initial=-1)) + 1
        return ClassCounts(*(_summed(each, unit_I, units) for each in (self.tp_IK, self.truth_IK, self.found_IK)))

    def select(self, rows: npt.NDArray[Any], columns: npt.NDArray[Any]) -> ClassCounts:
        """Keep these images or units, and these classes."""
        index = np.ix_(rows, columns)
        return ClassCounts(self.tp_IK[index], self.truth_IK[index], self.found_IK[index])


def count_classes(
    truth_HW: npt.NDArray[Any], found_HW: npt.NDArray[Any], classes: int, ignore: int
) -> tuple[Counts, Counts, Counts]:
    """Count the pixels of one image: true positives, label and mask of each class, int64 [K].

    An id in the mask that is no class is wrong wherever it is.
    """
    counted_HW = truth_HW != ignore
    truth, found = truth_HW[counted_HW], found_HW[counted_HW]
    tp_K, truth_K, found_K = (
        np.bincount(ids, minlength=classes)[:classes] for ids in (truth[truth == found], truth, found)
    )
    return tp_K, truth_K, found_K


def mean_over_classes(difference_NK: Values) -> Values:
    """Mean of each row over its classes that are not NaN, float64 [N]; each row has at least one."""
    present_NK = ~np.isnan(difference_NK)
    sums_N: Values = np.where(present_NK, difference_NK, 0.0).sum(axis=1)
    means_N: Values = sums_N / present_NK.sum(axis=1)
    return means_N


def number_units(groups: Sequence[str | None]) -> Indices:
    """Number the unit of each image from 0: images of one group are one unit, an image without a group is its own."""
    numbers: dict[Hashable, int] = {}
    keys: list[Hashable] = [number if group is None else group for number, group in enumerate(groups)]
    units = [numbers.setdefault(key, len(numbers)) for key in keys]
    return np.array(units, dtype=np.intp)


def _summed(counts_IK: Counts, unit_I: Indices, units: int) -> Counts:
    sums_UK = np.zeros((units, counts_IK.shape[1]), dtype=np.int64)
    np.add.at(sums_UK, unit_I, counts_IK)
    return sums_UK
