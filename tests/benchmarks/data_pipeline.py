"""Measure the data pipelines alone on one core: from the image file to the tensors that go to the device."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.plain_data import PlainPairs, PlainViews
from trainer.data.batches.loaders import Crop, LabelledPairs, UnlabelledViews
from trainer.data.readers.layouts import open_dataset

ROUNDS = 5


def pipeline_figures(root: Path, crop: int) -> dict[str, dict[str, float]]:
    """Return images/s per core and bytes per image to the device, for half labelled and half unlabelled images.

    Rounds of the two implementations alternate; the rates are medians.
    """
    dataset = open_dataset(root)
    labelled, unlabelled = dataset.split("labelled"), dataset.split("unlabelled")
    cut = Crop((crop, crop), (0.5, 2.0), seed=0)
    pairs, views = LabelledPairs(dataset, labelled, cut), UnlabelledViews(dataset, unlabelled, cut)
    plain_pairs, plain_views = PlainPairs(root, crop), PlainViews(root, crop)
    count = len(labelled)
    loaders: dict[str, Callable[[int], tuple[Any, Any]]] = {
        "plain": lambda number: (plain_pairs[number % count], plain_views[number % count]),
        "ours": lambda number: (pairs[number % count, number], views[number % count, number]),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rates = _rates(loaders, count)
    finally:
        torch.set_num_threads(threads)
    return {
        name: {"images_per_s_per_core": median(rates[name]), "device_bytes": sum(map(_bytes, load(0))) / 2}
        for name, load in loaders.items()
    }


def _rates(loaders: dict[str, Callable[[int], tuple[Any, Any]]], count: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for round_ in range(ROUNDS):
        for name, load in loaders.items():
            began = time.perf_counter()
            for number in range(round_ * count, (round_ + 1) * count):
                load(number)
            rates[name].append(2 * count / (time.perf_counter() - began))
    return rates


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
