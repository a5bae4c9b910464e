"""Count the pixels of masks by class."""

# H W pixels, K classes

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Pixels of a number of masks: by class, int64 [K], and the ignored ones."""

    masks: int
    classes_K: npt.NDArray[np.int64]
    ignored: int


def count_mask(mask_HW: npt.NDArray[np.int64], taxonomy: Taxonomy) -> LabelCounts:
    """Counts of one mask of class ids and ignore_index."""
    known_N = mask_HW[mask_HW != taxonomy.ignore_index]
    return LabelCounts(1, np.bincount(known_N, minlength=len(taxonomy)), mask_HW.size - known_N.size)


def add_counts(counts: Iterable[LabelCounts], taxonomy: Taxonomy) -> LabelCounts:
    """Sum of the counts of masks."""
    masks, classes_K, ignored = 0, np.zeros(len(taxonomy), dtype=np.int64), 0
    for each in counts:
        masks, classes_K, ignored = masks + each.masks, classes_K + each.classes_K, ignored + each.ignored
    return LabelCounts(masks, classes_K, ignored)
