"""Batches of a run, as a pure function of seed and step.

Which image comes when, and how it is cropped, depends on (seed, stream, draw number) alone. So a resumed run sees
exactly the batches that it would have seen, whatever the number of workers, and no random state has to be saved.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from trainer.data.dataset import Sample, SegmentationDataset
from trainer.data.decode import ImageError
from trainer.data.geometry import Window, cut_image, cut_mask, draw_window, inside

LABELLED_STREAM, UNLABELLED_STREAM = 1, 2
CROP_DRAW, ORDER_DRAW = 0, 1
"""What is drawn of a stream. It stands before the number: NumPy's seeds do not tell [1, 2, 3] from [1, 2, 3, 0]."""

UINT8_IDS = 256

Batch = TypeVar("Batch")
Draw = tuple[int, int]
"""(index of the sample, number of the draw within the run)."""


class Crop(NamedTuple):
    """How training crops are cut.

    Attributes:
        size: height and width, in pixels.
        scale: range of the random resize, as a factor of the long side.
        seed: the run's.
        long_side: what the long side is taken to be, in pixels: that of inference, so that the network learns at the
            scale at which it will be asked; 0 = the image's own.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    seed: int
    long_side: int = 0

    def window(self, image: tuple[int, int], stream: int, draw: int) -> Window:
        """The window of the run's draw number `draw` in an image of this (height, width)."""
        rng = np.random.default_rng([self.seed, stream, CROP_DRAW, draw])
        unit = self.long_side / max(image) if self.long_side else 1.0
        return draw_window(image, self.size, (self.scale[0] * unit, self.scale[1] * unit), rng)


class LabelledBatch(NamedTuple):
    """Images uint8 [B,H,W,3] RGB, and their masks [B,H,W], uint8 (int32 where ignore_index is above 255).

    As int64 a mask would weigh more than twice its image on the way from a worker to the device.
    """

    image_BHWC: Tensor
    mask_BHW: Tensor


class UnlabelledBatch(NamedTuple):
    """Weak views uint8 [B,H,W,3] RGB, and where they show an image and no padding, bool [B,H,W]."""

    image_BHWC: Tensor
    inside_BHW: Tensor


class LabelledPairs(Dataset[LabelledBatch]):
    """Weakly augmented photographs with their masks."""

    def __init__(self, dataset: SegmentationDataset, samples: tuple[Sample, ...], crop: Crop) -> None:
        self._dataset, self._samples, self._crop = dataset, samples, crop

    def __getitem__(self, draw: Draw) -> LabelledBatch:
        image_HWC, mask_HW = self._dataset.read_pair(self._samples[draw[0]])
        size, window = self._crop.size, self._crop.window(mask_HW.shape, LABELLED_STREAM, draw[1])
        ignore_index = self._dataset.taxonomy.ignore_index
        # No uint16: many of torch's operations have none. All class ids are below ignore_index.
        mask_hw = cut_mask(mask_HW, window, size, ignore_index).astype(
            np.uint8 if ignore_index < UINT8_IDS else np.int32
        )
        return LabelledBatch(torch.from_numpy(cut_image(image_HWC, window, size)), torch.from_numpy(mask_hw))


class UnlabelledViews(Dataset[UnlabelledBatch]):
    """Weakly augmented photographs; masks are never read."""

    def __init__(self, dataset: SegmentationDataset, samples: tuple[Sample, ...], crop: Crop) -> None:
        self._dataset, self._samples, self._crop = dataset, samples, crop

    def __getitem__(self, draw: Draw) -> UnlabelledBatch:
        image_HWC = self._dataset.read(self._samples[draw[0]])
        image = (image_HWC.shape[0], image_HWC.shape[1])
        size, window = self._crop.size, self._crop.window(image, UNLABELLED_STREAM, draw[1])
        return UnlabelledBatch(
            torch.from_numpy(cut_image(image_HWC, window, size)), torch.from_numpy(inside(window, size))
        )


class Shuffled(Sampler[list[Draw]]):
    """The draws of one process in steps `start` to `steps`.

    Every image comes once an epoch, in an order that (seed, stream, epoch) decide. A list of fewer images than a batch
    begins anew within the batch.

    Args:
        count: how many images there are.
        batch: rows of a batch, over all processes.
        rows: which of them are wanted, in this order.
        start, steps: first step, and the one after the last.
        seed, stream: what the order depends on.
    """

    def __init__(
        self, count: int, batch: int, rows: Sequence[int], *, start: int, steps: int, seed: int, stream: int
    ) -> None:
        self._count, self._batch, self._rows = count, batch, rows
        self._start, self._steps = start, steps
        self._seed, self._stream = seed, stream
        self._order = lru_cache(maxsize=2)(self._permutation)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self._start, self._steps):
            yield [self._draw(step * self._batch + row) for row in self._rows]

    def __len__(self) -> int:
        return self._steps - self._start

    def _draw(self, number: int) -> Draw:
        epoch, position = divmod(number, self._count)
        return int(self._order(epoch)[position]), number

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self._seed, self._stream, ORDER_DRAW, epoch]).permutation(self._count)


def rows_with_partner(share: range, batch: int) -> list[int]:
    """The rows of a process and, behind them, the one before its first.

    CutMix mixes each image with the one before it in the whole batch; a process that holds the whole batch has all of
    them already.
    """
    alone = len(share) == batch
    return [*share] if alone else [*share, (share.start - 1) % batch]


def leave_signals_to_the_run(_worker: int) -> None:
    """Ctrl-C and a service's SIGTERM go to the run's group; the run needs its workers until it has saved its state.

    So they leave the group. SIGTERM itself must still end them: it is how a run that fails gets rid of them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()


class Excused(Dataset[Batch | ImageError]):
    """A data set whose bad images are told as values: an exception from a worker comes as the text of a traceback."""

    def __init__(self, dataset: Dataset[Batch]) -> None:
        self._dataset = dataset

    def __getitem__(self, draw: Draw) -> Batch | ImageError:
        try:
            return self._dataset[draw]
        except ImageError as error:
            return error


def load(dataset: Dataset[Batch], sampler: Shuffled, *, workers: int, pinned: bool) -> Iterator[Batch]:
    """Batches as the sampler draws them; `pinned` in memory from which a GPU copies without waiting.

    Raises:
        ImageError: an image of the next batch cannot be used.
    """
    for batch in DataLoader(
        Excused(dataset),
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=pinned,
        collate_fn=_collated,
        worker_init_fn=leave_signals_to_the_run,
    ):
        if isinstance(batch, ImageError):
            raise batch
        yield batch


def _collated(rows: list[Any]) -> Any:
    return next((row for row in rows if isinstance(row, ImageError)), None) or default_collate(rows)
