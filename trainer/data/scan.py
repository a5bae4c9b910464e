"""Check every unlabelled image before a run and count classes, in threads."""

# K classes

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from trainer.data.dataset import FULL_READ_LIMIT, Sample, SegmentationDataset
from trainer.data.label_counts import LabelCounts, add_counts, count_mask
from trainer.data.map_in_threads import map_in_threads


def check_unlabelled(dataset: SegmentationDataset, samples: Sequence[Sample]) -> None:
    """Decode every unlabelled image, so that a bad file fails before step 1.

    Of more than FULL_READ_LIMIT images only headers are read. Raises ImageError for the first bad one.
    """
    read = dataset.read if len(samples) <= FULL_READ_LIMIT else dataset.size

    # Results would keep the decoded data set in memory.
    def check(sample: Sample) -> None:
        read(sample)

    map_in_threads(check, samples, "unlabelled images")


def class_frequency(dataset: SegmentationDataset, samples: Iterable[Sample]) -> Tensor:
    """Share of the labelled pixels per class, float64 [K], sum 1; reads masks and image headers. Raises ImageError."""

    def count(sample: Sample) -> LabelCounts:
        return count_mask(dataset.read_mask(sample, dataset.size(sample)), dataset.taxonomy)

    counts_K = add_counts(map_in_threads(count, list(samples), "masks"), dataset.taxonomy).classes_K
    return torch.from_numpy(counts_K / max(counts_K.sum(), 1))
