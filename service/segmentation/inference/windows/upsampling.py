"""Bilinear upsampling of probabilities to the size of the image, a few rows at a time."""

# K classes, H W pixels of the image, b finished rows, c columns of the scaled image, r rows of a strip

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.segmentation.inference.windows.sliding import FinishedRows, Floats

STRIP_VALUES = 2**22
"""Values of a strip: 16 MB, as it passes through the processor's caches several times."""


@dataclass(frozen=True, slots=True)
class Interpolation:
    """Linear interpolation along one axis: pixel i is `(1 - weight[i]) * old[lower[i]] + weight[i] * old[upper[i]]`."""

    lower: npt.NDArray[np.int64]
    upper: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]

    @classmethod
    def resize(cls, before: int, after: int) -> Interpolation:
        """From `before` pixels to `after`, as torch with align_corners=False."""
        place = np.maximum((np.arange(after) + 0.5) * (before / after) - 0.5, 0)
        lower = np.minimum(place.astype(np.int64), before - 1)
        weight = (place - lower).astype(np.float32)
        upper = np.minimum(np.where(weight > 0, lower + 1, lower), before - 1)
        return cls(lower, upper, weight)

    def part(self, begin: int, end: int) -> Interpolation:
        """Only the pixels from `begin` to `end`, exclusive."""
        return Interpolation(self.lower[begin:end], self.upper[begin:end], self.weight[begin:end])

    def relative_to(self, first: int) -> Interpolation:
        """The same for an array that begins at old pixel `first`."""
        return Interpolation(self.lower - first, self.upper - first, self.weight)

    @property
    def is_copy(self) -> bool:
        """Whether every pixel equals one old pixel."""
        return not self.weight.any()


def upsampled(
    blocks: Iterable[FinishedRows], rows: Interpolation, columns: Interpolation, *, first: int
) -> Iterator[tuple[int, Floats]]:
    """Mean softmax of all windows, at the size of the image.

    `rows` interpolates all rows of the image, `columns` the requested columns; the blocks begin at column `first`.

    Yields:
        Strips from top to bottom without gap: the first row of each, and its probabilities, float32 [K, r, W].
    """
    columns = columns.relative_to(first)
    above_Kc, done = None, 0
    for block in blocks:
        # Rows that are interpolated from this block and the next one wait for the next.
        ready = int(np.searchsorted(rows.upper, block.top + block.windows_bc.shape[0]))
        step = max(1, STRIP_VALUES // (block.sum_Kbc.shape[0] * len(columns.weight)))
        for begin in range(done, ready, step):
            strip = rows.part(begin, min(begin + step, ready)).relative_to(block.top)
            yield begin, _interpolate_columns(_interpolate_rows(block, above_Kc, strip), columns)
        above_Kc, done = block.sum_Kbc[:, -1] / block.windows_bc[-1], max(done, ready)


def _interpolate_rows(block: FinishedRows, above_Kc: Floats | None, rows: Interpolation) -> Floats:
    """Rows of the image at the columns of the block, float32 [K, r, c]."""
    lower_Krc = _means(block, above_Kc, rows.lower)
    if rows.is_copy:
        return lower_Krc
    return lower_Krc + (_means(block, above_Kc, rows.upper) - lower_Krc) * rows.weight[:, None]


def _means(block: FinishedRows, above_Kc: Floats | None, at_r: npt.NDArray[np.int64]) -> Floats:
    """Mean softmax at rows of the block, float32 [K, r, c]; row -1 is the last row of the previous block."""
    mean_Krc: Floats = block.sum_Kbc[:, at_r] / block.windows_bc[at_r]
    if above_Kc is not None:
        mean_Krc[:, at_r < 0] = above_Kc[:, None]
    return mean_Krc


def _interpolate_columns(values_Krc: Floats, columns: Interpolation) -> Floats:
    lower_KrW = np.take(values_Krc, columns.lower, axis=2)
    if columns.is_copy:
        return lower_KrW
    return lower_KrW + (np.take(values_Krc, columns.upper, axis=2) - lower_KrW) * columns.weight
