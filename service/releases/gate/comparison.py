"""Decide from the counts of two models on the same images whether one may replace the other."""

# I images, U units, K classes, B draws

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from service.releases.gate.sentences import describe
from service.releases.gate.statistics.class_counts import ClassCounts, Indices, Values, mean_over_classes
from service.releases.gate.statistics.difference import (
    BOOTSTRAP_UNITS,
    Difference,
    estimate,
    holm,
    leave_one_out,
    p_below,
)
from service.releases.gate.statistics.paired_bootstrap import bootstrap
from service.releases.gate.verdict import ClassComparison, Comparison, Outcome, Role, Rule

MIN_GUARD_UNITS = 10
"""A class on fewer units is reported and never decides."""
POWER = 0.8
"""Probability with which `units_needed` decide."""
MOST_UNITS = 100_000
"""Nobody labels more images to decide about one candidate."""


def compare_counts(
    candidate: ClassCounts,
    other: ClassCounts,
    unit_I: Indices,
    names: Sequence[str],
    rule: Rule,
    *,
    role: Role = "active",
    version: str = "",
) -> Comparison:
    """Compare two models over the classes in the labels.

    Args:
        candidate: Counts of the candidate, [I, K].
        other: Counts of the other model, which is active or was, with the same labels; at least one pixel has a label.
        unit_I: Unit of each image, from 0.
        names: Names of the K classes.
        rule: What the candidate must show.
        role: What the other model is.
        version: Its version.
    """
    units = candidate.by_unit(unit_I)
    # A unit without labels tells nothing, and a class without labels has no ground truth.
    rows, columns = np.flatnonzero(units.truth_IK.any(axis=1)), np.flatnonzero(units.truth_IK.any(axis=0))
    ours, theirs = units.select(rows, columns), other.by_unit(unit_I).select(rows, columns)
    without_UK = leave_one_out(ours, theirs)
    # Fewer units use none of the draws.
    draws = rule.draws if len(rows) >= BOOTSTRAP_UNITS else 0
    draws_BK = bootstrap(ours, theirs, draws=draws, seed=rule.seed)
    difference = estimate(
        float((ours.iou() - theirs.iou()).mean()),
        mean_over_classes(without_UK) if len(rows) > 1 else np.zeros(1),
        mean_over_classes(draws_BK),
        units=len(rows),
        level=rule.level,
    )
    present = [names[int(k)] for k in columns]
    classes = _compare_classes(ours, theirs, present, without_UK=without_UK, draws_BK=draws_BK, rule=rule)
    outcome = decide_outcome(difference, any(each.worse for each in classes.values()), rule)
    found = Comparison(
        role=role,
        version=version,
        mode=rule.mode,
        outcome=outcome,
        difference=difference,
        classes=classes,
        units_needed=units_needed(difference, rule) if outcome == "undecided" else None,
        sentence="",
    )
    return replace(found, sentence=describe(found, rule, images=len(unit_I), all_classes=len(names)))


def units_needed(difference: Difference, rule: Rule) -> int | None:
    """Number of units that decide in 80 % of all cases if difference and spread stay: ((z_a + z_b) sd / distance)^2.

    The distance is that from the bound beyond which the difference lies; None if it is between both, or so close to one
    of them that `MOST_UNITS` would not decide.
    """
    if difference.standard_error is None:
        return None
    value, lowest = difference.value, -rule.margin
    if lowest <= value <= rule.promotion_bound:
        return None
    distance = value - rule.promotion_bound if value > rule.promotion_bound else lowest - value
    quantiles = NormalDist().inv_cdf(1 - rule.level) + NormalDist().inv_cdf(POWER)
    deviation = math.sqrt(difference.units) * difference.standard_error
    if quantiles * deviation > math.sqrt(MOST_UNITS) * distance:
        return None
    return max(math.ceil((quantiles * deviation / distance) ** 2), difference.units + 1)


def _compare_classes(
    ours: ClassCounts,
    theirs: ClassCounts,
    names: Sequence[str],
    *,
    without_UK: Values,
    draws_BK: Values,
    rule: Rule,
) -> dict[str, ClassComparison]:
    units_K, ours_K, theirs_K = np.count_nonzero(ours.truth_IK, axis=0), ours.iou(), theirs.iou()
    differences = {
        name: estimate(
            float(ours_K[k] - theirs_K[k]),
            without_UK[:, k],
            draws_BK[:, k],
            units=int(units_K[k]),
            level=rule.level,
        )
        for k, name in enumerate(names)
    }
    p_values = holm(
        {
            name: p_below(differences[name], -rule.margin, draws_BK[:, k])
            for k, name in enumerate(names)
            if name in rule.guard_classes and units_K[k] >= MIN_GUARD_UNITS
        }
    )
    return {
        name: ClassComparison(
            candidate_iou=float(ours_K[k]),
            other_iou=float(theirs_K[k]),
            difference=differences[name],
            guarded=name in p_values,
            p_value=p_values.get(name),
            worse=p_values.get(name, 1.0) <= rule.level,
        )
        for k, name in enumerate(names)
    }


def decide_outcome(difference: Difference, guard_class_worse: bool, rule: Rule) -> Outcome:
    """Decide by the limits of the difference; a guard class that is shown to be worse rejects the candidate."""
    if guard_class_worse:
        return "reject"
    if difference.lower is None or difference.upper is None:
        return "undecided"
    if difference.upper < -rule.margin:
        return "reject"
    return "promote" if difference.lower > rule.promotion_bound else "undecided"
