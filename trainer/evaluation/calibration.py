"""Expected calibration error: mean difference between confidence and accuracy (arXiv 1706.04599)."""

# M bins

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15
"""Number of bins, as in section 5."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Pixels in one range of confidence: number, mean confidence and share of right ones; 0..1, None without pixels."""

    pixels: int
    confidence: float | None
    accuracy: float | None


def calibration_sums(confidence: Tensor, right: Tensor, counted: Tensor) -> Tensor:
    """Sums over the `counted` pixels of each bin ((m-1)/M, m/M], float64 [3,M]: pixels, confidence, right pixels.

    `confidence` is float, 0..1, of any shape; the others are bool of that shape.
    """
    bin_of = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    slots = torch.where(counted, bin_of, BINS).flatten()
    values = torch.stack([torch.ones_like(confidence), confidence, right.to(confidence.dtype)]).flatten(1).double()
    sums = torch.zeros((3, BINS + 1), dtype=torch.float64, device=confidence.device)
    return sums.index_add_(1, slots, values)[:, :BINS]


def calibration_bins(sums_3M: Tensor) -> tuple[Bin, ...]:
    """Bins from the results of `calibration_sums`, summed over images."""
    return tuple(
        Bin(int(pixels), confidence / pixels if pixels else None, right / pixels if pixels else None)
        for pixels, confidence, right in sums_3M.T.tolist()
    )


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Mean of |confidence - accuracy| over all pixels, 0..1 (eq. 3)."""
    total = sum(each.pixels for each in bins)
    distances = [
        each.pixels * abs(each.confidence - each.accuracy)
        for each in bins
        if each.confidence is not None and each.accuracy is not None
    ]
    return sum(distances) / max(total, 1)
