"""Whether a candidate has learnt a class that the active model lacks."""

from __future__ import annotations

import numpy as np
import pytest

from service.releases.gate.statistics.class_counts import ClassCounts
from service.releases.gate.statistics.new_classes import judge_new


def counts_of(found: list[bool], classes: int = 1) -> ClassCounts:
    """Units of ten pixels of each class; of those on which it is found, five pixels are right."""
    tp_UK = np.repeat(np.array(found, np.int64)[:, None] * 5, classes, axis=1)
    return ClassCounts(tp_UK, np.full_like(tp_UK, 10), np.full_like(tp_UK, 5))


@pytest.mark.parametrize(
    ("hits", "units", "p_value", "not_learnt"),
    [
        (0, 4, 1 / 16, False),
        (0, 5, 1 / 32, True),
        (1, 7, 8 / 128, False),
        (1, 8, 9 / 256, True),
        (4, 8, 163 / 256, False),
    ],
)
def test_class_is_not_learnt_if_it_is_found_on_fewer_than_half_of_the_images(
    hits: int, units: int, p_value: float, *, not_learnt: bool
) -> None:
    found = judge_new(counts_of([True] * hits + [False] * (units - hits)), ["tree"], [0], 0.05)["tree"]
    assert (found.units, found.found_units, found.pixels) == (units, hits, 10 * units)
    assert (found.p_value, found.not_learnt) == (p_value, not_learnt)
    # Ten labelled pixels and five found ones a unit; the found ones are right on the units that count as hits.
    assert found.iou == pytest.approx(5 * hits / (15 * units - 5 * hits))


def test_level_holds_for_all_new_classes_together() -> None:
    """Five images without a hit suffice for one class, and six for two."""
    for units, not_learnt in ((5, False), (6, True)):
        found = judge_new(counts_of([False] * units, classes=2), ["tree", "pond"], [0, 1], 0.05)
        assert [each.not_learnt for each in found.values()] == [not_learnt, not_learnt]


def test_class_without_labels_is_not_judged() -> None:
    counts = ClassCounts(*np.zeros((3, 4, 1), np.int64))
    found = judge_new(counts, ["tree"], [0], 0.05)["tree"]
    assert (found.iou, found.units, found.p_value, found.not_learnt) == (None, 0, None, False)
