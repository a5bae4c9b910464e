"""Probabilities of a resized image back at the size of the image: bilinear, a few rows at a time."""

# K classes, H W pixels of the image, b rows of a band, c columns of what was seen, r rows of a strip

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.segmentation.inference.windows.sliding import Band, Floats

VALUES_AT_ONCE = 2**22
"""Values of a strip, 16 MB: it passes through the processor's caches several times."""


@dataclass(frozen=True, slots=True)
class Line:
    """What each pixel of a line is made of: the values at `lower` and `upper`, the latter with `weight`, 0..1."""

    lower: npt.NDArray[np.int64]
    upper: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]

    @classmethod
    def between(cls, before: int, after: int) -> Line:
        """From `before` pixels to `after`, both reckoned at their middles, as torch does with align_corners=False."""
        place = np.maximum((np.arange(after) + 0.5) * (before / after) - 0.5, 0)
        lower = np.minimum(place.astype(np.int64), before - 1)
        weight = (place - lower).astype(np.float32)
        upper = np.minimum(np.where(weight > 0, lower + 1, lower), before - 1)
        return cls(lower, upper, weight)

    def part(self, begin: int, end: int) -> Line:
        """The pixels from `begin` to before `end`."""
        return Line(self.lower[begin:end], self.upper[begin:end], self.weight[begin:end])

    def seen_from(self, first: int) -> Line:
        """The same where the values before `first` are left out."""
        return Line(self.lower - first, self.upper - first, self.weight)

    @property
    def plain(self) -> bool:
        """Whether every pixel is one value alone."""
        return not self.weight.any()


def upsampled(bands: Iterable[Band], rows: Line, columns: Line, *, first: int) -> Iterator[tuple[int, Floats]]:
    """Mean softmax of all windows, at the size of the image.

    Args:
        bands: From top to bottom.
        rows: All rows of the image.
        columns: Those columns of it that are wanted.
        first: The column at which the bands begin.

    Yields:
        Strips from top to bottom without gap: the first row of each, and its probabilities, float32 [K, r, W].
    """
    columns = columns.seen_from(first)
    above_Kc, done = None, 0
    for band in bands:
        # Rows that lie between this band and the next one wait for that.
        ready = int(np.searchsorted(rows.upper, band.top + band.windows_bc.shape[0]))
        step = max(1, VALUES_AT_ONCE // (band.sum_Kbc.shape[0] * len(columns.weight)))
        for begin in range(done, ready, step):
            strip = rows.part(begin, min(begin + step, ready)).seen_from(band.top)
            yield begin, _wide(_tall(band, above_Kc, strip), columns)
        above_Kc, done = band.sum_Kbc[:, -1] / band.windows_bc[-1], max(done, ready)


def _tall(band: Band, above_Kc: Floats | None, rows: Line) -> Floats:
    """Rows of the image at the columns of the band, float32 [K, r, c]."""
    lower_Krc = _means(band, above_Kc, rows.lower)
    if rows.plain:
        return lower_Krc
    return lower_Krc + (_means(band, above_Kc, rows.upper) - lower_Krc) * rows.weight[:, None]


def _means(band: Band, above_Kc: Floats | None, at_r: npt.NDArray[np.int64]) -> Floats:
    """Rows of the band, float32 [K, r, c]; -1 is the last one of the band above."""
    mean_Krc: Floats = band.sum_Kbc[:, at_r] / band.windows_bc[at_r]
    if above_Kc is not None:
        mean_Krc[:, at_r < 0] = above_Kc[:, None]
    return mean_Krc


def _wide(values_Krc: Floats, columns: Line) -> Floats:
    lower_KrW = np.take(values_Krc, columns.lower, axis=2)
    if columns.plain:
        return lower_KrW
    return lower_KrW + (np.take(values_Krc, columns.upper, axis=2) - lower_KrW) * columns.weight
