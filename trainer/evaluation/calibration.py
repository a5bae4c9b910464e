"""Expected calibration error: is a model that says 90 % right in 90 % of the cases? (arXiv 1706.04599)."""

# M bins

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15
"""As in the paper's section 5."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Pixels of like confidence.

    Attributes:
        pixels: how many.
        confidence: their mean, 0..1; None without pixels.
        accuracy: the part of them that is right, 0..1; None without pixels.
    """

    pixels: int
    confidence: float | None
    accuracy: float | None


def calibration_sums(confidence: Tensor, right: Tensor, counted: Tensor) -> Tensor:
    """Sums over the pixels of each bin ((m-1)/M, m/M], float64 [3,M]: pixels, confidence, right ones.

    Args:
        confidence: float, 0..1, of any shape.
        right: bool of that shape.
        counted: bool of that shape; other pixels are left out.
    """
    bin_of = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    slots = torch.where(counted, bin_of, BINS).flatten()
    values = torch.stack([torch.ones_like(confidence), confidence, right.to(confidence.dtype)]).flatten(1).double()
    sums = torch.zeros((3, BINS + 1), dtype=torch.float64, device=confidence.device)
    return sums.index_add_(1, slots, values)[:, :BINS]


def calibration_bins(sums_3M: Tensor) -> tuple[Bin, ...]:
    """The bins that `calibration_sums`, added up over images, tells of."""
    return tuple(
        Bin(int(pixels), confidence / pixels if pixels else None, right / pixels if pixels else None)
        for pixels, confidence, right in sums_3M.T.tolist()
    )


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Mean distance between confidence and accuracy over all pixels, 0..1 (eq. 3 of the paper)."""
    total = sum(each.pixels for each in bins)
    distances = [
        each.pixels * abs(each.confidence - each.accuracy)
        for each in bins
        if each.confidence is not None and each.accuracy is not None
    ]
    return sum(distances) / max(total, 1)
