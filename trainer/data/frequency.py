"""How often each class occurs in the labels."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from trainer.data.dataset import Sample, SegmentationDataset


def class_frequency(dataset: SegmentationDataset, samples: Iterable[Sample]) -> Tensor:
    """Part of the labelled pixels that each class has, float64 [K], summing to 1. Raises ImageError."""
    count_K = np.zeros(len(dataset.taxonomy), dtype=np.int64)
    for sample in samples:
        _, mask_HW = dataset.read_pair(sample)
        count_K += np.bincount(mask_HW[mask_HW != dataset.taxonomy.ignore_index], minlength=len(count_K))
    return torch.from_numpy(count_K / max(count_K.sum(), 1))
