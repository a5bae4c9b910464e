"""The difference of two models' mIoU and its limits."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from service.releases.gate.statistics.class_counts import ClassCounts, mean_over_classes
from service.releases.gate.statistics.difference import Difference, estimate, holm, leave_one_out, p_below
from service.releases.gate.statistics.paired_bootstrap import bootstrap, resample
from service.releases.gate.statistics.student_t import t_cdf, t_quantile
from tests.service.releases.gate.simulation import rare_classes, runs


def difference_of(ours: ClassCounts, theirs: ClassCounts) -> Difference:
    value = float((ours.iou() - theirs.iou()).mean())
    without_U = mean_over_classes(leave_one_out(ours, theirs))
    return estimate(value, without_U, np.empty(0), units=len(without_U), level=0.05)


def test_two_images_with_two_classes_by_hand() -> None:
    truth = np.array([[6, 4], [2, 8]])
    ours = ClassCounts(np.array([[6, 4], [2, 4]]), truth, np.array([[6, 4], [6, 4]]))
    theirs = ClassCounts(np.array([[6, 0], [0, 8]]), truth, np.array([[10, 0], [0, 10]]))
    assert ours.iou().tolist() == pytest.approx([8 / 12, 8 / 12])
    assert theirs.iou().tolist() == pytest.approx([6 / 12, 8 / 14])
    # Second image alone: (2/6 + 4/8) / 2 against (0 + 8/10) / 2. First image alone: 1 against (6/10 + 0) / 2.
    without_U = mean_over_classes(leave_one_out(ours, theirs))
    assert without_U.tolist() == pytest.approx([1 / 60, 7 / 10])
    found = difference_of(ours, theirs)
    assert found.value == pytest.approx(11 / 84)
    # Both are 41/120 from their mean: sqrt(1/2 * 2 * (41/120)^2).
    assert found.standard_error == pytest.approx(41 / 120)
    assert found.lower == pytest.approx(11 / 84 - 6.313752 * 41 / 120)
    assert found.upper == pytest.approx(11 / 84 + 6.313752 * 41 / 120)
    assert (found.method, found.units) == ("t", 2)


def naive_difference(ours: ClassCounts, theirs: ClassCounts, rows: list[int]) -> float:
    """Mean over the classes with a label of the difference in IoU, of these rows, with loops."""
    differences = []
    for k in range(ours.truth_IK.shape[1]):
        if sum(int(ours.truth_IK[row, k]) for row in rows):
            iou = []
            for counts in (ours, theirs):
                tp, truth, found = (
                    sum(int(each[row, k]) for row in rows) for each in (counts.tp_IK, counts.truth_IK, counts.found_IK)
                )
                iou.append(tp / (truth + found - tp))
            differences.append(iou[0] - iou[1])
    return sum(differences) / len(differences)


def test_jackknife_and_bootstrap_equal_naive_loops() -> None:
    ours, theirs = rare_classes(3, images=9, share=0.3)
    without_U = mean_over_classes(leave_one_out(ours, theirs))
    for unit in range(9):
        rows = [row for row in range(9) if row != unit]
        assert without_U[unit] == pytest.approx(naive_difference(ours, theirs, rows), abs=1e-12)
    draws_B = mean_over_classes(bootstrap(ours, theirs, draws=50, seed=7))
    weights_BU = np.concatenate(list(resample(9, 50, 7)))
    for draw, weights_U in zip(draws_B, weights_BU, strict=True):
        rows = [row for row in range(9) for _ in range(int(weights_U[row]))]
        assert len(rows) == 9
        assert draw == pytest.approx(naive_difference(ours, theirs, rows), abs=1e-12)


def test_draws_are_the_same_for_the_same_seed_and_fit_in_memory() -> None:
    ours, theirs = rare_classes(0, images=40, share=1.0)
    first, again, other = (bootstrap(ours, theirs, draws=30, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    blocks = [block.shape for block in resample(1_000_000, 3, 0)]
    assert blocks == [(2, 1_000_000), (1, 1_000_000)]


@pytest.mark.parametrize("gain", [0.0, 0.01, 0.03])
def test_p_value_equals_that_of_a_permutation_test(gain: float) -> None:
    """Exact: if both models are equal, swapping them on any of the images changes nothing."""
    for ours, theirs in runs(11, count=3, images=12, gain=gain):
        found = difference_of(ours, theirs)
        assert found.standard_error is not None
        own = 1 - t_cdf(found.value / found.standard_error, found.units - 1)
        swaps_SU = np.array(list(product([0.0, 1.0], repeat=12)))
        ious = []
        for first, second in ((ours, theirs), (theirs, ours)):
            tp, union = (
                (swaps_SU @ a + (1 - swaps_SU) @ b)
                for a, b in ((second.tp_IK, first.tp_IK), (second.union(), first.union()))
            )
            ious.append((tp / union).mean(axis=1))
        exact = float((ious[0] - ious[1] >= found.value - 1e-12).mean())
        assert own == pytest.approx(exact, abs=0.03)


def test_bootstrap_and_t_limits_agree_on_many_images() -> None:
    ((ours, theirs),) = runs(4, count=1, images=300)
    value, without_U = float((ours.iou() - theirs.iou()).mean()), mean_over_classes(leave_one_out(ours, theirs))
    draws_B = mean_over_classes(bootstrap(ours, theirs, draws=4000, seed=0))
    found = estimate(value, without_U, draws_B, units=300, level=0.05)
    assert found.method == "bootstrap"
    assert found.standard_error is not None
    distance = t_quantile(0.95, 299) * found.standard_error
    assert found.lower == pytest.approx(value - distance, abs=0.1 * distance)
    assert found.upper == pytest.approx(value + distance, abs=0.1 * distance)
    # The p-value of a bound is the level where the bound is the limit.
    assert found.upper is not None
    assert p_below(found, found.upper, draws_B) == pytest.approx(0.05, abs=0.002)


def test_p_value_is_the_level_where_the_bound_is_the_t_limit() -> None:
    ((ours, theirs),) = runs(4, count=1, images=12)
    found = difference_of(ours, theirs)
    assert found.upper is not None
    assert p_below(found, found.upper, np.empty(0)) == pytest.approx(0.05, abs=1e-9)


def test_one_unit_has_no_limits() -> None:
    found = estimate(0.3, np.zeros(1), np.empty(0), units=1, level=0.05)
    assert (found.value, found.standard_error, found.lower, found.upper) == (0.3, None, None, None)
    assert p_below(found, 0.9, np.empty(0)) == 1.0


def test_models_that_differ_equally_on_all_images_are_told_apart() -> None:
    found = estimate(-0.2, np.full(5, -0.2), np.empty(0), units=5, level=0.05)
    assert (found.lower, found.upper, found.standard_error) == (-0.2, -0.2, 0.0)
    assert (p_below(found, -0.1, np.empty(0)), p_below(found, -0.3, np.empty(0))) == (0.0, 1.0)


def test_holm_adjusts_p_values_step_by_step() -> None:
    # Sorted: 0.01 * 3, 0.02 * 2, 0.9 * 1.
    assert holm({"a": 0.02, "b": 0.9, "c": 0.01}) == pytest.approx({"c": 0.03, "a": 0.04, "b": 0.9})
    # An adjusted value is never below the one before, nor above 1.
    assert holm({"a": 0.02, "b": 0.021, "c": 0.8}) == pytest.approx({"a": 0.06, "b": 0.06, "c": 0.8})
    assert holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    assert math.isclose(holm({"a": 0.3})["a"], 0.3)
