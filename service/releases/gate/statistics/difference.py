"""Estimate how much the IoU of two models differs, with one-sided confidence limits.

The statistic is pooled: the pixels of all images are summed before the IoU is computed, as the trainer reports it.

- Below 30 units: Student's t with the standard error of the delete-one jackknife (Efron and Stein 1981). The standard
  error of the influence function, (tp_i - IoU * union_i) / union, is its first-order approximation and too small for
  classes that few images show: with 20 units and rare classes, a lower limit at the level 0.05 is wrong in 15 % of
  simulated cases, and that of the jackknife in 5 %.
- From 30 units: percentiles of a paired bootstrap, at the expanded levels of Hesterberg 2014 (arXiv 1411.5279). These
  make up for percentiles being too close together, by sqrt((n - 1) / n) and by the normal distribution in place of t.
  With 60 units and rare classes a limit is wrong in 7 % of simulated cases. BCa limits (Efron 1987) are wrong in 13 %.
  The limits of the jackknife would be simpler, and are wrong less often with rare classes, but more often if the losses
  are on few images: percentiles follow the skew of such differences, and t is symmetric.

`tests/service/releases/gate/test_levels.py` has the simulations.
"""

# U units, K classes, B draws

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from service.releases.gate.statistics.class_counts import ClassCounts, Values
from service.releases.gate.statistics.student_t import t_cdf, t_quantile

Method = Literal["t", "bootstrap"]

BOOTSTRAP_UNITS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Candidate minus other model, in IoU (-1..1), with one-sided limits."""

    value: float
    standard_error: float | None
    """None: one unit tells nothing about the spread."""
    lower: float | None
    """The true difference is below it with at most the probability `level`; None as above."""
    upper: float | None
    """The true difference is above it with at most the probability `level`; None as above."""
    method: Method
    units: int
    """Images or groups with a label; for a class, those that show it."""


def leave_one_out(candidate: ClassCounts, other: ClassCounts) -> Values:
    """Compute the difference in IoU of each class without each unit, float64 [U, K]; NaN without a label of it."""
    remaining_UK = candidate.truth_IK.sum(axis=0) - candidate.truth_IK
    difference_UK = _iou_without(candidate) - _iou_without(other)
    return np.where(remaining_UK > 0, difference_UK, np.nan)


def estimate(value: float, without_U: Values, draws_B: Values, *, units: int, level: float) -> Difference:
    """Compute the limits of a difference.

    Args:
        value: The difference of the pooled IoU.
        without_U: The same without each unit, float64 [U].
        draws_B: The same in each bootstrap draw, float64 [B]; not used below 30 units.
        units: Units that determine it: U, or for one class those that show it.
        level: Probability of error of each limit, between 0 and 0.5.
    """
    method: Method = "t" if units < BOOTSTRAP_UNITS else "bootstrap"
    if units < 2:
        return Difference(value=value, standard_error=None, lower=None, upper=None, method=method, units=units)
    error = _jackknife_error(without_U)
    quantile = t_quantile(1 - level, units - 1)
    if method == "t":
        lower, upper = value - quantile * error, value + quantile * error
    else:
        wider = NormalDist().cdf(-math.sqrt(units / (units - 1)) * quantile)
        lower, upper = (float(limit) for limit in np.nanquantile(draws_B, [wider, 1 - wider]))
    return Difference(value=value, standard_error=error, lower=lower, upper=upper, method=method, units=units)


def p_below(difference: Difference, bound: float, draws_B: Values) -> float:
    """P-value (0..1) of "the true difference is below `bound`": small if `upper` is far below it, 1 with one unit."""
    if difference.standard_error is None:
        return 1.0
    dof = difference.units - 1
    if difference.method == "bootstrap":
        valid_B = draws_B[~np.isnan(draws_B)]
        share = (1 + np.count_nonzero(valid_B >= bound)) / (2 + len(valid_B))
        return t_cdf(NormalDist().inv_cdf(share) * math.sqrt(dof / difference.units), dof)
    if difference.standard_error == 0:
        return 0.0 if difference.value < bound else 1.0
    return t_cdf((difference.value - bound) / difference.standard_error, dof)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Adjust p-values for the number of tests (Holm 1979): all tests together then err with at most the level."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_value))
        adjusted[name] = largest
    return adjusted


def _iou_without(counts: ClassCounts) -> Values:
    tp_UK = counts.tp_IK.sum(axis=0) - counts.tp_IK
    union_UK = counts.union().sum(axis=0) - counts.union()
    iou_UK: Values = tp_UK / np.maximum(union_UK, 1)
    return iou_UK


def _jackknife_error(without_U: Values) -> float:
    units = len(without_U)
    return math.sqrt((units - 1) / units * float(np.square(without_U - without_U.mean()).sum()))
