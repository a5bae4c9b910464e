"""Judge every pair of models on drawn validation sets, and compare the verdicts with the order on the held-out images.

A draw takes some stretches of video for validation; all others are held out, and the difference on them counts as the
true one. The gate's own code judges both.
"""

# I images, U stretches of video, K classes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from demo.terminal import Report
from service.releases.gate.class_counts import ClassCounts, Indices
from service.releases.gate.comparison import compare_counts
from service.releases.gate.verdict import Comparison, Mode, Outcome, Rule
from tests.scenarios.gate_models import ScoredModel

MARGIN, LEVEL = 0.01, 0.05
"""Defaults of the service."""
TRUTH_DRAWS = 1000
"""Draws of the bootstrap on the held-out images, whose limits need not be as exact as the gate's."""
MODES: tuple[Mode, ...] = ("not_worse", "better")


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
    verdicts: dict[Mode, Comparison]
    by_image: dict[Mode, Outcome]
    """Verdicts if every image is wrongly taken for independent."""
    with_more: Outcome | None
    """In the mode `better`, if undecided: the verdict after as many more stretches as it asked for; None: too many."""


class Judge:
    """Judges pairs of models on the same images."""

    def __init__(self, models: Sequence[ScoredModel], unit_I: Indices, names: Sequence[str]) -> None:
        self._models, self._unit_I, self._names = models, unit_I, names
        self._units = int(unit_I.max()) + 1

    def trials(self, sizes: Sequence[int], draws: int, report: Report) -> list[Trial]:
        """Judge all ordered pairs on `draws` validation sets of each size, in stretches."""
        plans = list(product(sizes, range(draws)))
        trials = []
        for number, (units, seed) in enumerate(plans, 1):
            order_U = np.random.default_rng([seed, units]).permutation(self._units)
            trials += [
                self._trial(candidate, active, order_U, units) for candidate, active in permutations(self._models, 2)
            ]
            report(number, len(plans))
        return trials

    def difference(self, candidate: ScoredModel, active: ScoredModel) -> Comparison:
        """Compare two models on all images."""
        rule = Rule(margin=MARGIN, level=LEVEL, mode="better")
        return self._compare(candidate, active, np.arange(self._units), rule)

    def _trial(self, candidate: ScoredModel, active: ScoredModel, order_U: Indices, units: int) -> Trial:
        chosen_U, others_U = order_U[:units], order_U[units:]
        rules = {mode: Rule(margin=MARGIN, level=LEVEL, mode=mode) for mode in MODES}
        truth = self._compare(
            candidate, active, others_U, Rule(margin=MARGIN, level=LEVEL, mode="better", draws=TRUTH_DRAWS)
        )
        verdicts = {mode: self._compare(candidate, active, chosen_U, rule) for mode, rule in rules.items()}
        needed = verdicts["better"].units_needed
        with_more = None
        if needed is not None and needed <= self._units:
            with_more = self._compare(candidate, active, order_U[:needed], rules["better"]).outcome
        return Trial(
            candidate=candidate.name,
            active=active.name,
            units=units,
            true_difference=truth.difference.value,
            true_outcome=truth.outcome,
            verdicts=verdicts,
            by_image={
                mode: self._compare(candidate, active, chosen_U, rule, by_image=True).outcome
                for mode, rule in rules.items()
            },
            with_more=with_more,
        )

    def _compare(
        self, candidate: ScoredModel, active: ScoredModel, chosen_U: Indices, rule: Rule, *, by_image: bool = False
    ) -> Comparison:
        rows = np.flatnonzero(np.isin(self._unit_I, chosen_U))
        unit_I = np.arange(len(rows)) if by_image else np.unique(self._unit_I[rows], return_inverse=True)[1]
        ours, theirs = (_rows(model.counts, rows) for model in (candidate, active))
        return compare_counts(ours, theirs, unit_I, self._names, rule)


def _rows(counts: ClassCounts, rows: Indices) -> ClassCounts:
    return counts.select(rows, np.arange(counts.truth_IK.shape[1]))
