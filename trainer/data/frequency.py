"""How often each class occurs in the labels."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.data.dataset import Sample, SegmentationDataset
from trainer.data.preflight import in_threads


def class_frequency(dataset: SegmentationDataset, samples: Iterable[Sample]) -> Tensor:
    """Part of the labelled pixels that each class has, float64 [K], summing to 1. Raises ImageError.

    Of the photographs only the headers are read.
    """
    classes, ignore_index = len(dataset.taxonomy), dataset.taxonomy.ignore_index

    def counts(sample: Sample) -> npt.NDArray[np.int64]:
        mask_HW = dataset.read_mask(sample, dataset.size(sample))
        return np.bincount(mask_HW[mask_HW != ignore_index], minlength=classes)

    count_K = sum(in_threads(counts, list(samples), "masks"), np.zeros(classes, dtype=np.int64))
    return torch.from_numpy(count_K / max(count_K.sum(), 1))
