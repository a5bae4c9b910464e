"""Check every image before a run and count classes, in threads."""

# H W pixels, K classes

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from trainer.data.dataset import FULL_READ_LIMIT, Sample, SegmentationDataset

Item = TypeVar("Item")
Result = TypeVar("Result")


def check_images(dataset: SegmentationDataset, labelled: Sequence[Sample], unlabelled: Sequence[Sample]) -> None:
    """Decode every labelled image with its mask, and every unlabelled image, so that a bad file fails before step 1.

    Of more than FULL_READ_LIMIT unlabelled images only headers are read. Raises ImageError for the first bad one.
    """
    read = dataset.read if len(unlabelled) <= FULL_READ_LIMIT else dataset.size

    # Results would keep the decoded data set in memory.
    def check_labelled(sample: Sample) -> None:
        dataset.read_pair(sample)

    def check_unlabelled(sample: Sample) -> None:
        read(sample)

    map_in_threads(check_labelled, labelled, "labelled images")
    map_in_threads(check_unlabelled, unlabelled, "unlabelled images")


def class_frequency(dataset: SegmentationDataset, samples: Iterable[Sample]) -> Tensor:
    """Share of the labelled pixels per class, float64 [K], sum 1; reads masks and image headers. Raises ImageError."""
    classes, ignore_index = len(dataset.taxonomy), dataset.taxonomy.ignore_index

    def count(sample: Sample) -> npt.NDArray[np.int64]:
        mask_HW = dataset.read_mask(sample, dataset.size(sample))
        return np.bincount(mask_HW[mask_HW != ignore_index], minlength=classes)

    count_K = sum(map_in_threads(count, list(samples), "masks"), np.zeros(classes, dtype=np.int64))
    return torch.from_numpy(count_K / max(count_K.sum(), 1))


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
