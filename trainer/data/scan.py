"""Check every unlabelled image before a run and count classes, in threads."""

# K classes

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from trainer.data.dataset import FULL_READ_LIMIT, Sample, SegmentationDataset
from trainer.data.label_counts import LabelCounts, add_counts, count_mask

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    """Results in the order of the items, computed in threads (decoding releases the GIL), with a progress bar.

    The first exception is raised and cancels the rest.
    """
    console = Console(stderr=True)
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        results = pool.map(function, items)
        return list(track(results, title, len(items), console=console, transient=True, disable=not console.is_terminal))
    finally:
        pool.shutdown(cancel_futures=True)
