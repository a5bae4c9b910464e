"""Sliding-window inference: sum the probabilities of overlapping windows, row by row.

Rows of pixels above the next row of windows are final and are yielded at once, so memory holds class maps of one
window's height, for the requested columns only.
"""

# N windows, K classes, D dimensions, T U height and width of a window, H W pixels of the image, b finished rows,
# c columns

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.errors import OutOfMemory
from service.segmentation.inference.cancellation import CancelCheck, InferenceCancelled, never_cancelled
from service.segmentation.inference.predictor import Embedding, Pixels
from service.segmentation.inference.windows.mean_embedding import MeanEmbedding
from service.segmentation.inference.windows.tiling import Tiling, window_counts

Floats = npt.NDArray[np.float32]


class WindowOutputs(NamedTuple):
    """Softmax over the classes, float32 [N, K, T, U], and embeddings [N, D], if the graph has them."""

    probability_NKTU: Floats
    embedding_ND: Embedding | None = None


Network = Callable[[Pixels], WindowOutputs]
"""Runs windows, uint8 [N, T, U, 3]."""

MAX_BATCH = 4
BATCH_VALUES = 2**24
"""Most probabilities of a batch of windows: 64 MB, of which the graph holds a few copies. Larger windows run one at a
time: a batch is no faster."""


@dataclass(frozen=True, slots=True)
class FinishedRows:
    """Rows of the image that no later window covers, for the requested columns.

    Attributes:
        top: The first of them.
        sum_Kbc: Sum of the softmax of all windows, float32; overwritten when the iterator advances.
        windows_bc: Number of summed windows, float32.
    """

    top: int
    sum_Kbc: Floats
    windows_bc: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class SlidingWindows:
    """Windows over one image, uint8 RGB; `is_cancelled` is called before each batch.

    `embedding` receives the embeddings of the windows.
    """

    network: Network
    classes: int
    tiling: Tiling
    image_HW3: Pixels
    is_cancelled: CancelCheck = never_cancelled
    embedding: MeanEmbedding = field(default_factory=MeanEmbedding)

    def finished_rows(self, first: int, last: int) -> Iterator[FinishedRows]:
        """Summed softmax of all windows, for the columns from `first` to `last`, exclusive.

        The rows go from the top of the image to its bottom, without gap or overlap.

        Raises:
            OutOfMemory: The network ran out of memory with a single window.
            InferenceCancelled: `is_cancelled` returned True.
        """
        height, width = self.image_HW3.shape[:2]
        window_height, window_width = self.tiling.window
        tops, lefts = self.tiling.tops(height), self.tiling.lefts(width)
        rows_H = window_counts(tops, window_height, height)
        columns_c = window_counts(lefts, window_width, width)[first:last]
        lefts = [left for left in lefts if left < last and left + window_width > first]
        sum_KTc = np.zeros((self.classes, window_height, last - first), dtype=np.float32)
        for top, next_top in zip(tops, [*tops[1:], height], strict=True):
            for left, probability_KTU in self._row_of_windows(top, lefts):
                begin, end = max(left, first), min(left + window_width, last)
                sum_KTc[..., begin - first : end - first] += probability_KTU[..., begin - left : end - left]
            finished = next_top - top
            yield FinishedRows(top, sum_KTc[:, :finished], rows_H[top:next_top, None] * columns_c)
            _shift_up(sum_KTc, finished)

    def _row_of_windows(self, top: int, lefts: list[int]) -> Iterator[tuple[int, Floats]]:
        """First column and probabilities of each window of a row. A batch that runs out of memory runs one by one."""
        height, width = self.tiling.window
        batch = max(1, min(MAX_BATCH, BATCH_VALUES // (self.classes * height * width)))
        failed = False
        while lefts:
            if self.is_cancelled():
                raise InferenceCancelled
            current = lefts[:batch]
            try:
                probability_NKTU, embedding_ND = self.network(self._cut(top, current))
            except OutOfMemory as error:
                if failed:
                    raise OutOfMemory(
                        f"The machine ran out of memory with one window of {width}x{height} pixels: try again later, "
                        "or give the service more memory.",
                        retry_after_s=error.retry_after_s,
                    ) from None
                failed, batch = True, 1
                continue
            failed = False
            for left, embedding_D in zip(current, () if embedding_ND is None else embedding_ND, strict=False):
                self.embedding.add((top, left), embedding_D)
            yield from zip(current, probability_NKTU, strict=True)
            lefts = lefts[len(current) :]

    def _cut(self, top: int, lefts: list[int]) -> Pixels:
        """Windows of the image, uint8 [N, T, U, 3]; pixels outside the image are black."""
        height, width = self.tiling.window
        window_NTU3 = np.zeros((len(lefts), height, width, 3), dtype=np.uint8)
        for window_TU3, left in zip(window_NTU3, lefts, strict=True):
            part = self.image_HW3[top : top + height, left : left + width]
            window_TU3[: part.shape[0], : part.shape[1]] = part
        return window_NTU3


def _shift_up(sum_KTc: Floats, rows: int) -> None:
    """Drop finished rows and append zeros; one class at a time, as numpy copies data that it moves within an array."""
    kept = sum_KTc.shape[1] - rows
    for sum_Tc in sum_KTc:
        sum_Tc[:kept] = sum_Tc[rows:]
        sum_Tc[kept:] = 0
