"""Judge the classes that the active model lacks: no comparison can tell whether the candidate has learnt them.

A class counts as not learnt if the candidate is shown to find it, in a single pixel at least, on fewer than half of the
validation images that show it: the sign test of a median IoU of 0. It is exact, assumes nothing about the spread, and
needs five images of which the class is found on none at the level 0.05. An IoU with limits would need more: with an IoU
of 0 on all images there is no spread from which a limit could follow.
"""

# U units, K classes

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import comb

import numpy as np

from service.releases.gate.statistics.class_counts import ClassCounts
from service.releases.gate.statistics.difference import holm


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClass:
    """What the candidate achieves in a class that the active model lacks."""

    iou: float | None
    """0..1, over all validation images; None: none shows it."""
    units: int
    """Independent validation images, or groups, that show it."""
    found_units: int
    """Those among them on which the candidate finds a pixel of it."""
    pixels: int
    """Labelled pixels."""
    p_value: float | None
    """Of finding it on at least half of all images, adjusted by Holm's method for all new classes; None: not shown."""
    not_learnt: bool
    """Whether the p-value is at most the level."""


def judge_new(counts: ClassCounts, names: Sequence[str], new: Collection[int], level: float) -> dict[str, NewClass]:
    """Judge new classes, by their ids, from the counts of the candidate by unit, [U, K]."""
    iou_K = counts.iou()
    found: dict[str, NewClass] = {}
    for class_id in new:
        shown_U = counts.truth_IK[:, class_id] > 0
        units, hits = int(shown_U.sum()), int(np.count_nonzero(counts.tp_IK[shown_U, class_id]))
        found[names[class_id]] = NewClass(
            iou=float(iou_K[class_id]) if units else None,
            units=units,
            found_units=hits,
            pixels=int(counts.truth_IK[:, class_id].sum()),
            p_value=_p_at_most(hits, units) if units else None,
            not_learnt=False,
        )
    adjusted = holm({name: each.p_value for name, each in found.items() if each.p_value is not None})
    return {
        name: replace(each, p_value=adjusted.get(name), not_learnt=adjusted.get(name, 1.0) <= level)
        for name, each in found.items()
    }


def _p_at_most(hits: int, units: int) -> float:
    """Probability of at most `hits` of `units` if each has the probability 1/2."""
    return float(sum(comb(units, number) for number in range(hits + 1)) / 2**units)
