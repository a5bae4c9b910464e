"""Expected calibration error of a model's confidences (Guo et al. 2017, arXiv 1706.04599, eq. 3)."""

# H W pixels, M bins

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15
"""As in the paper, section 5, and in the trainer."""
LEVELS = 256

Histogram = npt.NDArray[np.int64]


def confidence_histogram(confidence: npt.NDArray[np.uint8], right: npt.NDArray[Any]) -> Histogram:
    """Count all pixels and the right ones of each confidence 0..255, int64 [2, 256]."""
    return np.stack([np.bincount(values, minlength=LEVELS) for values in (confidence, confidence[right])])


def calibration_error(histogram: Histogram) -> float:
    """Mean of |confidence - accuracy| over all pixels in 15 bins ((m - 1) / 15, m / 15], 0..1; 0 without pixels."""
    levels = np.arange(LEVELS)
    bins = np.maximum(-(-levels * BINS // (LEVELS - 1)), 1) - 1
    all_pixels, right = histogram
    confidence_M = np.bincount(bins, all_pixels * levels / (LEVELS - 1), minlength=BINS)
    right_M = np.bincount(bins, right, minlength=BINS)
    return float(np.abs(confidence_M - right_M).sum() / max(int(all_pixels.sum()), 1))
