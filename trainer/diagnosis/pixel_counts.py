"""Count the classes of labels and pseudo-labels during training, on the device and without synchronization."""

# R rows, K classes, H W pixels; 2 = labelled, unlabelled

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.methods.interface import StudentBatch


@dataclass(frozen=True, slots=True)
class Window:
    """Pixels of some steps: of the labels and of the confident pseudo-labels by class, and all unlabelled ones."""

    steps: int
    labelled_K: tuple[int, ...]
    pseudo_K: tuple[int, ...]
    unlabelled: int


class PixelCounts:
    """Counts since the last `take`, in this process."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self._counts_2K = torch.zeros((2, classes), dtype=torch.int64, device=device)
        self._pixels = torch.zeros(1, dtype=torch.int64, device=device)
        self._steps = 0

    def add(self, batch: StudentBatch) -> None:
        """Add the rows of one step; pixels of weight 0 are not labelled, or not confident."""
        counted_RHW = (batch.weight_RHW > 0).long()
        for counts_K, rows in zip(self._counts_2K, (slice(batch.labelled), slice(batch.labelled, None)), strict=True):
            counts_K.scatter_add_(0, batch.label_RHW[rows].flatten(), counted_RHW[rows].flatten())
        self._pixels += batch.label_RHW[batch.labelled :].numel()
        self._steps += 1

    @property
    def steps(self) -> int:
        """Number of steps counted."""
        return self._steps

    def take(self, total: Callable[[Tensor], Tensor]) -> Window:
        """The counts, summed over all processes by `total`; counting starts again."""
        counts = total(torch.cat([self._counts_2K.flatten(), self._pixels])).tolist()
        classes, steps = self._counts_2K.shape[1], self._steps
        self._counts_2K.zero_()
        self._pixels.zero_()
        self._steps = 0
        return Window(steps, tuple(counts[:classes]), tuple(counts[classes : 2 * classes]), counts[-1])
