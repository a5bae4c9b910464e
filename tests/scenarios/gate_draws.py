"""Judge every pair of models on drawn validation sets, and compare the verdicts with the order on the held-out images.

A draw takes some stretches of video for validation; all others are held out, and the difference on them counts as the
true one. The gate's own code judges both.
"""

# I images, U stretches of video, K classes

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from demo.terminal import Report
from service.releases.gate.comparison import compare_counts, decide_outcome, units_needed
from service.releases.gate.statistics.class_counts import ClassCounts, Indices
from service.releases.gate.statistics.difference import Difference
from service.releases.gate.verdict import Mode, Outcome, Rule
from tests.scenarios.gate_models import ScoredModel

MODES: tuple[Mode, ...] = ("not_worse", "better")
# The service's defaults.
RULES = {mode: Rule(margin=0.01, level=0.05, mode=mode) for mode in MODES}
MARGIN = RULES["better"].margin


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One validation set, and two models."""

    candidate: str
    active: str
    units: int
    """Stretches of video in the validation set."""
    true_difference: float
    """Candidate minus active on the held-out images, in mIoU."""
    true_outcome: Outcome
    """What the held-out images show beyond chance: better (promote), worse by the margin (reject), neither."""
    verdicts: dict[Mode, Outcome]
    by_image: dict[Mode, Outcome]
    """Verdicts if every image is wrongly taken for independent."""
    with_more: Outcome | None = None
    """In the mode `better`, if undecided: the verdict with as many stretches as it asked for; None: there are fewer."""


class Judge:
    """Judges pairs of models on the same images."""

    def __init__(self, models: Sequence[ScoredModel], unit_I: Indices, names: Sequence[str]) -> None:
        self._models, self._unit_I, self._names = models, unit_I, names
        self._units = int(unit_I.max()) + 1

    def trials(self, sizes: Sequence[int], draws: int, report: Report) -> list[Trial]:
        """Judge all ordered pairs on `draws` validation sets of each size, in stretches."""
        plans = list(product(sizes, range(draws)))
        trials: list[Trial] = []
        for number, (units, seed) in enumerate(plans, 1):
            order_U = np.random.default_rng([seed, units]).permutation(self._units)
            for first, second in combinations(self._models, 2):
                trials += self._both_ways(first, second, order_U, units)
            report(number, len(plans))
        return trials

    def difference(self, candidate: ScoredModel, active: ScoredModel) -> Difference:
        """Compare two models on all images."""
        return self._compare(candidate, active, np.arange(self._units))

    def _both_ways(self, first: ScoredModel, second: ScoredModel, order_U: Indices, units: int) -> Iterator[Trial]:
        chosen_U, others_U = order_U[:units], order_U[units:]
        truth = self._compare(first, second, others_U)
        by_group = self._compare(first, second, chosen_U)
        by_image = self._compare(first, second, chosen_U, by_image=True)
        for candidate, active, turn in ((first, second, _same), (second, first, mirrored)):
            trial = Trial(
                candidate=candidate.name,
                active=active.name,
                units=units,
                true_difference=turn(truth).value,
                true_outcome=outcome(turn(truth), "better"),
                verdicts={mode: outcome(turn(by_group), mode) for mode in MODES},
                by_image={mode: outcome(turn(by_image), mode) for mode in MODES},
            )
            needed = units_needed(turn(by_group), RULES["better"])
            if trial.verdicts["better"] == "undecided" and needed is not None and needed <= self._units:
                more = self._compare(candidate, active, order_U[:needed])
                trial = replace(trial, with_more=outcome(more, "better"))
            yield trial

    def _compare(
        self, candidate: ScoredModel, active: ScoredModel, chosen_U: Indices, *, by_image: bool = False
    ) -> Difference:
        rows = np.flatnonzero(np.isin(self._unit_I, chosen_U))
        unit_I = np.arange(len(rows)) if by_image else np.unique(self._unit_I[rows], return_inverse=True)[1]
        ours, theirs = (_rows(model.counts, rows) for model in (candidate, active))
        return compare_counts(ours, theirs, unit_I, self._names, RULES["better"]).difference


def outcome(difference: Difference, mode: Mode) -> Outcome:
    """The verdict about a difference."""
    return decide_outcome(difference, guard_class_worse=False, rule=RULES[mode])


def mirrored(difference: Difference) -> Difference:
    """The difference with candidate and active model exchanged."""
    lower, upper = (None if limit is None else -limit for limit in (difference.upper, difference.lower))
    return replace(difference, value=-difference.value, lower=lower, upper=upper)


def _same(difference: Difference) -> Difference:
    return difference


def _rows(counts: ClassCounts, rows: Indices) -> ClassCounts:
    return counts.select(rows, np.arange(counts.truth_IK.shape[1]))
