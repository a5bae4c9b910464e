"""Windows that slide over an image, and what they say of each pixel together.

Windows come in rows, and what lies above the next row is final: so the image comes out in bands, and no more than one
window's height of the class maps is ever held, of no more columns than are asked for.
"""

# N windows, K classes, T U height and width of a window, H W pixels of the image, b rows of a band, c columns

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.errors import OutOfMemory
from service.segmentation.inference.cancellation import Gone, InferenceCancelled, never_cancelled
from service.segmentation.inference.prediction import Pixels
from service.segmentation.inference.windows.tiling import Tiling, windows_over

Floats = npt.NDArray[np.float32]
Probabilities = Callable[[Pixels], Floats]
"""Windows uint8 [N, T, U, 3] to the softmax over the classes, float32 [N, K, T, U]."""

WINDOWS_AT_ONCE = 4
VALUES_AT_ONCE = 2**24
"""Values of the probabilities of the windows that go through the network together: 64 MB, and the graph holds a few
such arrays at a time. More than one window at once, where it is larger, gains nothing."""


@dataclass(frozen=True, slots=True)
class Band:
    """Finished rows of an image, of the columns that were asked for.

    Attributes:
        top: The first of them.
        sum_Kbc: Summed softmax of all windows, float32; good until the next band is asked for.
        windows_bc: How many windows that were, float32.
    """

    top: int
    sum_Kbc: Floats
    windows_bc: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """One image under windows.

    Attributes:
        ask: The network.
        classes: How many it tells apart.
        tiling: How windows lie.
        image_HW3: uint8, RGB.
        gone: SegmentQuery before each of the network's runs.
    """

    ask: Probabilities
    classes: int
    tiling: Tiling
    image_HW3: Pixels
    gone: Gone = never_cancelled

    def bands(self, first: int, last: int) -> Iterator[Band]:
        """Summed softmax of all windows, from the top of the image to its bottom.

        Args:
            first: The leftmost column that is wanted.
            last: The one behind the rightmost.

        Yields:
            Bands without gap or overlap.

        Raises:
            OutOfMemory: Not even one window goes through the network alone.
            InferenceCancelled: `gone` said so.
        """
        height, width = self.image_HW3.shape[:2]
        side, reach = self.tiling.window
        tops, lefts = self.tiling.tops(height), self.tiling.lefts(width)
        rows_H = windows_over(tops, side, height)
        columns_c = windows_over(lefts, reach, width)[first:last]
        lefts = [left for left in lefts if left < last and left + reach > first]
        sum_KTc = np.zeros((self.classes, side, last - first), dtype=np.float32)
        for top, following in zip(tops, [*tops[1:], height], strict=True):
            for left, probability_KTU in self._row(top, lefts):
                begin, end = max(left, first), min(left + reach, last)
                sum_KTc[..., begin - first : end - first] += probability_KTU[..., begin - left : end - left]
            finished = following - top
            yield Band(top, sum_KTc[:, :finished], rows_H[top:following, None] * columns_c)
            _move_up(sum_KTc, finished)

    def _row(self, top: int, lefts: list[int]) -> Iterator[tuple[int, Floats]]:
        """One row of windows, each with its left side. What did not fit into memory together is asked one by one."""
        side, reach = self.tiling.window
        at_once = max(1, min(WINDOWS_AT_ONCE, VALUES_AT_ONCE // (self.classes * side * reach)))
        failed = False
        while lefts:
            if self.gone():
                raise InferenceCancelled
            now = lefts[:at_once]
            try:
                probability_NKTU = self.ask(self._cut(top, now))
            except OutOfMemory as error:
                if failed:
                    raise OutOfMemory(
                        f"The machine had no memory left for one window of {reach}x{side} pixels: ask again later, or "
                        "give the service more memory.",
                        retry_after_s=error.retry_after_s,
                    ) from None
                failed, at_once = True, 1
                continue
            failed = False
            yield from zip(now, probability_NKTU, strict=True)
            lefts = lefts[len(now) :]

    def _cut(self, top: int, lefts: list[int]) -> Pixels:
        """Windows of the image, uint8 [N, T, U, 3]; what lies outside is black."""
        side, reach = self.tiling.window
        window_NTU3 = np.zeros((len(lefts), side, reach, 3), dtype=np.uint8)
        for window_TU3, left in zip(window_NTU3, lefts, strict=True):
            part = self.image_HW3[top : top + side, left : left + reach]
            window_TU3[: part.shape[0], : part.shape[1]] = part
        return window_NTU3


def _move_up(sum_KTc: Floats, rows: int) -> None:
    """Make place for the next row of windows; class by class, as numpy copies what it moves within one array."""
    kept = sum_KTc.shape[1] - rows
    for sum_Tc in sum_KTc:
        sum_Tc[:kept] = sum_Tc[rows:]
        sum_Tc[kept:] = 0
