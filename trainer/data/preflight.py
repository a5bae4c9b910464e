"""A look at every image that a run will use, before its first step: a bad file must not end a run after an hour."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from trainer.data.dataset import FULLY_READ, Sample, SegmentationDataset

Item = TypeVar("Item")
Result = TypeVar("Result")


def check_images(dataset: SegmentationDataset, labelled: Sequence[Sample], unlabelled: Sequence[Sample]) -> None:
    """Decode every labelled photograph with its mask, and every unlabelled one, once.

    Of more than FULLY_READ unlabelled images only the headers are read: decoding a hundred thousand would cost more
    than the rare bad one, which the run then names when it meets it.

    Raises:
        ImageError: at the first that is no use.
    """
    look = dataset.read if len(unlabelled) <= FULLY_READ else dataset.size
    in_threads(_without_result(dataset.read_pair), labelled, "labelled images")
    in_threads(_without_result(look), unlabelled, "unlabelled images")


def in_threads(look: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    """`look` at all items in threads, with a progress bar on a terminal; results in order, the first error raised.

    Decoding leaves Python's lock, so threads use the cores, and no process has to start.
    """
    console = Console(stderr=True)
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        looked = pool.map(look, items)
        shown = track(looked, title, len(items), console=console, transient=True, disable=not console.is_terminal)
        return list(shown)
    finally:
        pool.shutdown(cancel_futures=True)


def _without_result(look: Callable[[Sample], object]) -> Callable[[Sample], None]:
    """`look` for its errors alone: its results together would be the whole data set in memory, decoded."""

    def looked(sample: Sample) -> None:
        look(sample)

    return looked
