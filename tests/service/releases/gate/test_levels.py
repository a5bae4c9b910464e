"""How often the verdict is wrong or right, by simulation, and which limits keep their level with rare classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from statistics import NormalDist

import numpy as np
import pytest

from service.releases.gate.comparison import compare_counts
from service.releases.gate.statistics.class_counts import ClassCounts, Values, mean_over_classes
from service.releases.gate.statistics.difference import estimate, leave_one_out
from service.releases.gate.statistics.paired_bootstrap import bootstrap
from service.releases.gate.statistics.student_t import t_quantile
from service.releases.gate.verdict import Mode, Rule
from tests.service.releases.gate.simulation import rare_classes, rare_losses, runs

RUNS, LEVEL, MARGIN = 400, 0.05, 0.02
AT_MOST = LEVEL + 2 * math.sqrt(LEVEL * (1 - LEVEL) / RUNS)
# One number of units for each kind of limits.
UNITS = (20, 40)


def promoted(
    pairs: Iterable[tuple[ClassCounts, ClassCounts]], mode: Mode, *, copies: int = 1, grouped: bool = True
) -> float:
    """Share of the candidates that are promoted, where each image is there `copies` times."""
    rule = Rule(margin=MARGIN, level=LEVEL, mode=mode, draws=500)
    outcomes: Counter[str] = Counter()
    for candidate, other in pairs:
        images = len(candidate.truth_IK)
        unit_I = np.tile(np.arange(images), copies) if grouped else np.arange(images * copies)
        every, both = np.tile(np.arange(images), copies), np.arange(2)
        found = compare_counts(candidate.select(every, both), other.select(every, both), unit_I, ("a", "b"), rule)
        outcomes[found.outcome] += 1
    return outcomes["promote"] / outcomes.total()


@pytest.mark.parametrize("units", UNITS)
def test_equal_model_is_rarely_taken_for_a_better_one(units: int) -> None:
    assert promoted(runs(101, count=RUNS, images=units), "better") <= AT_MOST


@pytest.mark.parametrize("units", UNITS)
def test_model_worse_by_the_margin_is_rarely_promoted(units: int) -> None:
    assert promoted(runs(102, count=RUNS, images=units, gain=-MARGIN), "not_worse") <= AT_MOST


@pytest.mark.parametrize("units", UNITS)
def test_model_better_by_two_standard_errors_is_usually_promoted(units: int) -> None:
    differences = [ours.iou().mean() - theirs.iou().mean() for ours, theirs in runs(103, count=RUNS, images=units)]
    gain = 2 * float(np.std(differences))
    assert promoted(runs(104, count=RUNS, images=units, gain=gain), "better") >= 0.6


def test_duplicated_images_mislead_unless_they_are_grouped() -> None:
    def share(*, grouped: bool) -> float:
        return promoted(runs(105, count=RUNS, images=20), "better", copies=2, grouped=grouped)

    assert share(grouped=True) <= AT_MOST
    assert share(grouped=False) > AT_MOST


def test_jackknife_keeps_its_level_with_rare_classes_and_the_influence_function_does_not() -> None:
    wrong = Counter[str]()
    quantile = t_quantile(1 - LEVEL, 19)
    for seed in range(RUNS):
        ours, theirs = rare_classes(seed, images=20, share=0.4)
        value, units = float((ours.iou() - theirs.iou()).mean()), len(ours.truth_IK)
        found = estimate(value, mean_over_classes(leave_one_out(ours, theirs)), np.empty(0), units=20, level=LEVEL)
        assert found.lower is not None
        wrong["jackknife"] += found.lower > 0
        psi_U = (_influence(ours) - _influence(theirs)).mean(axis=1)
        wrong["influence"] += value - quantile * math.sqrt(units / (units - 1) * float(np.square(psi_U).sum())) > 0
    assert wrong["jackknife"] / RUNS <= AT_MOST
    assert wrong["influence"] / RUNS > 2 * LEVEL


def test_percentiles_are_wrong_less_often_than_bca_with_rare_classes() -> None:
    wrong = Counter[str]()
    for seed in range(RUNS):
        ours, theirs = rare_classes(seed, images=60, share=0.3)
        value = float((ours.iou() - theirs.iou()).mean())
        without_U = mean_over_classes(leave_one_out(ours, theirs))
        draws_B = mean_over_classes(bootstrap(ours, theirs, draws=500, seed=0))
        found = estimate(value, without_U, draws_B, units=60, level=LEVEL)
        assert found.lower is not None
        wrong["percentile"] += found.lower > 0
        wrong["bca"] += _bca_lower(value, without_U, draws_B) > 0
    assert wrong["percentile"] / RUNS <= 2 * LEVEL
    assert wrong["bca"] > 1.3 * wrong["percentile"]


def test_percentiles_are_wrong_less_often_than_t_if_the_losses_are_on_few_images() -> None:
    wrong, rng = Counter[str](), np.random.default_rng(0)
    ours, theirs = rare_losses(rng, images=200_000)
    true, quantile = float((ours.iou() - theirs.iou()).mean()), t_quantile(1 - LEVEL, 59)
    for _ in range(RUNS):
        ours, theirs = rare_losses(rng, images=60)
        value = float((ours.iou() - theirs.iou()).mean())
        without_U = mean_over_classes(leave_one_out(ours, theirs))
        draws_B = mean_over_classes(bootstrap(ours, theirs, draws=500, seed=0))
        found = estimate(value, without_U, draws_B, units=60, level=LEVEL)
        assert found.lower is not None
        assert found.standard_error is not None
        wrong["percentile"] += found.lower > true
        wrong["t"] += value - quantile * found.standard_error > true
    assert wrong["percentile"] < wrong["t"]


def _influence(counts: ClassCounts) -> Values:
    """First-order influence of each unit on each class, float64 [U, K]."""
    psi_UK: Values = (counts.tp_IK - counts.iou() * counts.union()) / np.maximum(counts.union().sum(axis=0), 1)
    return psi_UK


def _bca_lower(value: float, without_U: Values, draws_B: Values) -> float:
    """Lower limit of the bias-corrected and accelerated bootstrap (Efron 1987)."""
    normal, deviation_U = NormalDist(), without_U.mean() - without_U
    bias = normal.inv_cdf(float(np.clip((draws_B < value).mean(), 0.001, 0.999)))
    acceleration = (deviation_U**3).sum() / (6 * (deviation_U**2).sum() ** 1.5)
    shifted = bias + normal.inv_cdf(LEVEL)
    return float(np.quantile(draws_B, normal.cdf(bias + shifted / (1 - acceleration * shifted))))
