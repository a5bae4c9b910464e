"""Paired bootstrap of the difference of two models' IoU: both are computed from the same resampled units."""

# B draws, U units, K classes

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from service.releases.gate.statistics.class_counts import ClassCounts, Values

# Elements of one block of weights: 16 MB as float64.
BLOCK = 2_000_000


def resample(units: int, draws: int, seed: int) -> Iterator[Values]:
    """Yield how often each unit occurs in each of `draws` draws with replacement, as blocks of float64 [b, U]."""
    rng = np.random.default_rng(seed)
    size = max(1, BLOCK // units)
    for start in range(0, draws, size):
        rows = min(size, draws - start)
        picked_BU = rng.integers(0, units, (rows, units)) + units * np.arange(rows)[:, None]
        yield np.bincount(picked_BU.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def bootstrap(candidate: ClassCounts, other: ClassCounts, *, draws: int, seed: int) -> Values:
    """Compute the difference in IoU of each class in each draw, float64 [B, K].

    NaN: the draw has no label of the class. The labels are the same for both models.
    """
    units = len(candidate.truth_IK)
    blocks = [_differences(block_BU, candidate, other) for block_BU in resample(units, draws, seed)]
    return np.concatenate([np.empty((0, candidate.truth_IK.shape[1])), *blocks])


def _differences(weights_BU: Values, candidate: ClassCounts, other: ClassCounts) -> Values:
    difference_BK = _iou(weights_BU, candidate) - _iou(weights_BU, other)
    difference_BK[weights_BU @ candidate.truth_IK == 0] = np.nan
    return difference_BK


def _iou(weights_BU: Values, counts: ClassCounts) -> Values:
    # As float64: exact up to 2^53 pixels, and the product runs in BLAS.
    tp_BK: npt.NDArray[np.float64] = weights_BU @ counts.tp_IK.astype(np.float64)
    return tp_BK / np.maximum(weights_BU @ counts.union().astype(np.float64), 1.0)
