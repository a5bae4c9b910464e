"""Batches of a run, as a pure function of seed and step.

Which image comes when, and how it is cropped, depends on (seed, stream, draw number) alone. So a resumed run sees
exactly the batches that it would have seen, whatever the number of workers, and no random state has to be saved.
"""

import signal
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from trainer.data.dataset import DatasetError, Sample, SegmentationDataset
from trainer.data.geometry import Window, cut_image, cut_mask, draw_window, inside

LABELLED_STREAM, UNLABELLED_STREAM = 1, 2

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
        rng = np.random.default_rng([self.seed, stream, draw])
        unit = self.long_side / max(image) if self.long_side else 1.0
        return draw_window(image, self.size, (self.scale[0] * unit, self.scale[1] * unit), rng)


class LabelledBatch(NamedTuple):
    """Images uint8 [B,H,W,3] RGB, and their masks int64 [B,H,W]."""

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
        image_hwC = torch.from_numpy(cut_image(image_HWC, window, size))
        return LabelledBatch(
            image_hwC, torch.from_numpy(cut_mask(mask_HW, window, size, self._dataset.taxonomy.ignore_index))
        )


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
    """Batches of draws for steps `start` to `steps`.

    Every image comes once an epoch, in an order that (seed, stream, epoch) decide.
    """

    def __init__(self, count: int, batch: int, *, start: int, steps: int, seed: int, stream: int) -> None:
        self._count, self._batch, self._start, self._steps, self._seed, self._stream = (
            count,
            batch,
            start,
            steps,
            seed,
            stream,
        )
        self._epoch, self._order = -1, np.arange(count)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self._start, self._steps):
            yield [self._draw(step * self._batch + slot) for slot in range(self._batch)]

    def __len__(self) -> int:
        return self._steps - self._start

    def _draw(self, number: int) -> Draw:
        epoch, position = divmod(number, self._count)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, self._stream, epoch, 0]).permutation(self._count)
        return int(self._order[position]), number


def labelled_loader(
    pairs: LabelledPairs, count: int, batch: int, *, start: int, steps: int, seed: int, workers: int
) -> Iterator[LabelledBatch]:
    """Labelled batches of steps `start`..`steps`. Raises DatasetError when there are fewer images than a batch."""
    _check_enough(count, batch, "labelled")
    sampler = Shuffled(count, batch, start=start, steps=steps, seed=seed, stream=LABELLED_STREAM)
    return iter(DataLoader(pairs, batch_sampler=sampler, num_workers=workers, worker_init_fn=leave_signals_to_the_run))


def unlabelled_loader(
    views: UnlabelledViews, count: int, batch: int, *, start: int, steps: int, seed: int, workers: int
) -> Iterator[UnlabelledBatch]:
    """Unlabelled batches of steps `start`..`steps`. Raises DatasetError when there are fewer images than a batch."""
    _check_enough(count, batch, "unlabelled")
    sampler = Shuffled(count, batch, start=start, steps=steps, seed=seed, stream=UNLABELLED_STREAM)
    return iter(DataLoader(views, batch_sampler=sampler, num_workers=workers, worker_init_fn=leave_signals_to_the_run))


def leave_signals_to_the_run(_worker: int) -> None:
    """Ctrl-C and a service's SIGTERM reach the whole group; the run needs its workers until it has saved its state."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check_enough(count: int, batch: int, role: str) -> None:
    if count < batch:
        raise DatasetError(
            f"{count} {role} images are fewer than a batch of {batch}; add images or lower train.batch_{role}"
        )
