"""How windows lie over an image: the rule of a manifest, as the trainer's evaluation follows it."""

# H W pixels of the image, T U height and width of a window

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """The rule.

    Attributes:
        window: Height and width, pixels.
        stride: Step of the window as a part of its side, (0, 1]; the last one lies flush with the border.
        long_side: Pixels to which the image's long side is brought before; 0: none.
    """

    window: tuple[int, int]
    stride: float
    long_side: int

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """The size of the image that the windows lie over."""
        if self.long_side == 0:
            return height, width
        factor = self.long_side / max(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def tops(self, height: int) -> list[int]:
        """Where windows begin in an image of this height; a lower one is padded."""
        return _starts(max(height, self.window[0]), self.window[0], self.stride)

    def lefts(self, width: int) -> list[int]:
        """Where they begin in an image of this width; a narrower one is padded."""
        return _starts(max(width, self.window[1]), self.window[1], self.stride)


def windows_over(starts: list[int], side: int, length: int) -> npt.NDArray[np.float32]:
    """How many windows see each of the first `length` pixels of a line, float32 [length]."""
    counts = np.zeros(starts[-1] + side, dtype=np.float32)
    for start in starts:
        counts[start : start + side] += 1
    return counts[:length]


def _starts(length: int, side: int, stride: float) -> list[int]:
    step = max(1, round(side * stride))
    return [*range(0, length - side, step), length - side]
