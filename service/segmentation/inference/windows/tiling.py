"""Positions of sliding windows, by the rule in a manifest; the trainer's evaluation uses the same rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """Rule for the positions of windows.

    Attributes:
        window: Height and width, pixels.
        stride: Step between windows as a fraction of the window's side, (0, 1]; the last one ends at the border.
        long_side: Pixels to which the longer side of the image is scaled first; 0: no scaling.
    """

    window: tuple[int, int]
    stride: float
    long_side: int

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the image after scaling."""
        if self.long_side == 0:
            return height, width
        factor = self.long_side / max(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def tops(self, height: int) -> list[int]:
        """First rows of the windows. An image shorter than the window is padded."""
        return _starts(max(height, self.window[0]), self.window[0], self.stride)

    def lefts(self, width: int) -> list[int]:
        """First columns of the windows. An image narrower than the window is padded."""
        return _starts(max(width, self.window[1]), self.window[1], self.stride)


def window_counts(starts: list[int], side: int, length: int) -> npt.NDArray[np.float32]:
    """Number of windows that cover each of the first `length` pixels along an axis, float32 [length]."""
    counts = np.zeros(starts[-1] + side, dtype=np.float32)
    for start in starts:
        counts[start : start + side] += 1
    return counts[:length]


def _starts(length: int, side: int, stride: float) -> list[int]:
    step = max(1, round(side * stride))
    return [*range(0, length - side, step), length - side]
