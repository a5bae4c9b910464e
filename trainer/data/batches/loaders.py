"""Training batches, as a pure function of seed and step: a resumed run sees the same ones as an uninterrupted run."""

# B batch, C channels, H W pixels of the image (in a batch: of the crop), h w pixels of the crop

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from trainer.data.batches.geometry import Window, cut_image, cut_mask, draw_window, inside
from trainer.data.dataset import Sample, SegmentationDataset
from trainer.data.decode import ImageError

LABELLED_STREAM, UNLABELLED_STREAM = 1, 2
CROP_DRAW, ORDER_DRAW = 0, 1
"""Third element of a seed, so that crops and order are independent. Not last: NumPy ignores trailing zeros."""

UINT8_IDS = 256

Batch = TypeVar("Batch")
Draw = tuple[int, int]
"""(index of the sample, number of the draw in the run)."""


class Crop(NamedTuple):
    """Training crops: height and width in pixels, range of the random resize factor, seed of the run.

    The image's long side is first resized to `long_side` pixels, as in inference; 0 = no resize.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    seed: int
    long_side: int = 0

    def window(self, image: tuple[int, int], stream: int, draw: int) -> Window:
        """Random window of draw number `draw` in an image of that (height, width)."""
        rng = np.random.default_rng([self.seed, stream, CROP_DRAW, draw])
        base = self.long_side / max(image) if self.long_side else 1.0
        return draw_window(image, self.size, (self.scale[0] * base, self.scale[1] * base), rng)


class LabelledBatch(NamedTuple):
    """Crops uint8 [B,H,W,3] RGB, and masks [B,H,W] uint8 (int32 if ignore_index exceeds 255); one sample has no B."""

    image_BHWC: Tensor
    mask_BHW: Tensor


class UnlabelledBatch(NamedTuple):
    """Weak views uint8 [B,H,W,3] RGB, and bool [B,H,W], False on padding; one sample has no B."""

    image_BHWC: Tensor
    inside_BHW: Tensor


@dataclass(frozen=True)
class LabelledPairs(Dataset[LabelledBatch]):
    """Weakly augmented images with masks."""

    dataset: SegmentationDataset
    samples: tuple[Sample, ...]
    crop: Crop

    def __getitem__(self, draw: Draw) -> LabelledBatch:
        image_HWC, mask_HW = self.dataset.read_pair(self.samples[draw[0]])
        size, window = self.crop.size, self.crop.window(mask_HW.shape, LABELLED_STREAM, draw[1])
        ignore_index = self.dataset.taxonomy.ignore_index
        # Not uint16, which many torch operations do not support. All class ids are below ignore_index.
        small = np.uint8 if ignore_index < UINT8_IDS else np.int32
        mask_hw = cut_mask(mask_HW, window, size, ignore_index).astype(small)
        return LabelledBatch(torch.from_numpy(cut_image(image_HWC, window, size)), torch.from_numpy(mask_hw))


@dataclass(frozen=True)
class UnlabelledViews(Dataset[UnlabelledBatch]):
    """Weakly augmented images; masks are never read."""

    dataset: SegmentationDataset
    samples: tuple[Sample, ...]
    crop: Crop

    def __getitem__(self, draw: Draw) -> UnlabelledBatch:
        image_HWC = self.dataset.read(self.samples[draw[0]])
        size = self.crop.size
        window = self.crop.window((image_HWC.shape[0], image_HWC.shape[1]), UNLABELLED_STREAM, draw[1])
        view_hwC, inside_hw = cut_image(image_HWC, window, size), inside(window, size)
        return UnlabelledBatch(torch.from_numpy(view_hwC), torch.from_numpy(inside_hw))


def shuffled(
    count: int, batch: int, rows: Sequence[int], *, start: int, steps: int, seed: int, stream: int
) -> Iterator[list[Draw]]:
    """Batches of draws of one process for the steps from `start` to `steps` (excluded).

    Each of the `count` images occurs once per epoch, in an order given by (seed, stream, epoch); the next epoch may
    start within a batch. `batch` counts the rows over all processes; `rows` are those of this process.

    Deviation: the authors repeat the labelled list to the length of the unlabelled one and shuffle the result, so a
    labelled image may come again before another was seen. At the end of an epoch they drop the rest of the list.
    """

    @lru_cache(maxsize=2)
    def order(epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([seed, stream, ORDER_DRAW, epoch]).permutation(count)

    for step in range(start, steps):
        numbers = [step * batch + row for row in rows]
        yield [(int(order(number // count)[number % count]), number) for number in numbers]


def rows_with_partner(share: range, batch: int) -> list[int]:
    """Rows of a process, and the one before them, from which CutMix pastes, unless it has the whole batch."""
    return [*share] if len(share) == batch else [*share, (share.start - 1) % batch]


def detach_from_group_signals(_worker: int) -> None:
    """Worker initialisation: ignore Ctrl-C, and leave the run's process group.

    Ctrl-C and the service's SIGTERM are sent to the group, but the run needs its workers until its state is saved.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()


class ErrorsAsValues(Dataset[Batch | ImageError]):
    """Return an ImageError instead of raising it: a DataLoader re-raises a worker's exception as text only."""

    def __init__(self, dataset: Dataset[Batch]) -> None:
        self._dataset = dataset

    def __getitem__(self, draw: Draw) -> Batch | ImageError:
        try:
            return self._dataset[draw]
        except ImageError as error:
            return error


def load(dataset: Dataset[Batch], draws: Iterable[list[Draw]], *, workers: int, pinned: bool) -> Iterator[Batch]:
    """Load batches of the given draws; `pinned`: in page-locked memory. Raises ImageError."""
    for batch in DataLoader(
        ErrorsAsValues(dataset),
        batch_sampler=draws,
        num_workers=workers,
        pin_memory=pinned,
        collate_fn=_collate,
        worker_init_fn=detach_from_group_signals,
    ):
        if isinstance(batch, ImageError):
            raise batch
        yield batch


def _collate(rows: list[Any]) -> Any:
    return next((row for row in rows if isinstance(row, ImageError)), None) or default_collate(rows)
