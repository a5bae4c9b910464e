"""The verdict about two models, guard classes, and the number of labels that would decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.releases.gate.comparison import compare_counts, units_needed
from service.releases.gate.statistics.class_counts import ClassCounts
from service.releases.gate.statistics.difference import Difference
from service.releases.gate.verdict import Comparison, Mode, Rule

NAMES = ("road", "rider")


def model(road: list[float], rider: list[float], *, seen: int | None = None, pixels: int = 1000) -> ClassCounts:
    """Counts of a model that finds this share of the pixels of each class on each image, and no false ones.

    `rider` is on the first `seen` images only. So the IoU is the share.
    """
    truth_IK = np.full((len(road), 2), pixels, dtype=np.int64)
    truth_IK[seen if seen is not None else len(road) :, 1] = 0
    tp_IK = np.rint(truth_IK * np.array([road, rider]).T).astype(np.int64)
    return ClassCounts(tp_IK, truth_IK, tp_IK)


def compare(ours: ClassCounts, theirs: ClassCounts, **rule: Any) -> Comparison:
    return compare_counts(ours, theirs, np.arange(len(ours.truth_IK)), NAMES, rule_of(**rule))


def rule_of(**changes: Any) -> Rule:
    defaults: dict[str, Any] = {"margin": 0.01, "level": 0.05, "mode": "not_worse", "draws": 1000}
    return Rule(**(defaults | changes))


def around(mean: float, spread: float, images: int = 40) -> list[float]:
    """Shares around a mean, half of them above it."""
    return [mean + (spread if image % 2 else -spread) for image in range(images)]


BASE = model(around(0.6, 0.0), around(0.6, 0.0))


@pytest.mark.parametrize(
    ("mean", "spread", "not_worse", "better"),
    [
        (0.65, 0.01, "promote", "promote"),
        # The lower limit is about -0.003: above -0.01, and not above 0.
        (0.6, 0.01, "promote", "undecided"),
        (0.6, 0.1, "undecided", "undecided"),
        (0.594, 0.001, "promote", "undecided"),
        (0.55, 0.01, "reject", "reject"),
        (0.58, 0.1, "undecided", "undecided"),
    ],
)
@pytest.mark.parametrize("images", [20, 40])
def test_three_outcomes(mean: float, spread: float, not_worse: str, better: str, images: int) -> None:
    ours, theirs = (
        model(around(at, width, images), around(at, width, images)) for at, width in ((mean, spread), (0.6, 0))
    )
    modes: tuple[Mode, ...] = ("not_worse", "better")
    assert [compare(ours, theirs, mode=mode).outcome for mode in modes] == [not_worse, better]


def test_every_premise_is_in_the_result() -> None:
    found = compare(model(around(0.65, 0.01), around(0.65, 0.01)), BASE)
    assert (found.difference.units, found.difference.method, found.mode) == (40, "bootstrap", "not_worse")
    assert found.difference.value == pytest.approx(0.05)
    assert found.difference.lower is not None
    assert 0.04 < found.difference.lower < 0.05
    assert list(found.classes) == ["road", "rider"]
    rider = found.classes["rider"]
    assert [rider.candidate_iou, rider.other_iou] == pytest.approx([0.65, 0.6])
    assert rider.difference.value == pytest.approx(0.05)
    assert (rider.guarded, rider.p_value, rider.worse) == (False, None, False)
    assert found.sentence.startswith("mIoU 0.6500 against 0.6000 of the active model over 2 of 2 classes, on 40 valid")
    assert found.sentence.endswith("the candidate is not worse by 0.01 or more.")


def test_images_and_classes_without_labels_do_not_count() -> None:
    road, rider = around(0.65, 0.01, 30), around(0.65, 0.01, 30)
    ours, theirs = model(road, rider), model(around(0.6, 0.0, 30), around(0.6, 0.0, 30))
    unlabelled = ClassCounts(*np.zeros((3, 5, 2), dtype=np.int64))
    padded = [
        ClassCounts(*(np.vstack(pair) for pair in zip(*(_arrays(counts), _arrays(unlabelled)), strict=True)))
        for counts in (ours, theirs)
    ]
    assert compare(*padded).difference == compare(ours, theirs).difference
    never = model(road, rider, seen=0)
    found = compare(never, model(around(0.6, 0.0, 30), rider, seen=0))
    assert list(found.classes) == ["road"]
    assert "over 1 of 2 classes" in found.sentence


def _arrays(counts: ClassCounts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return counts.tp_IK, counts.truth_IK, counts.found_IK


def test_loss_in_a_guarded_class_rejects_a_candidate_with_a_better_mean() -> None:
    ours = model(around(0.9, 0.01), around(0.5, 0.01))
    assert compare(ours, BASE).outcome == "promote"
    found = compare(ours, BASE, guard_classes=("rider",))
    assert found.outcome == "reject"
    rider = found.classes["rider"]
    assert (rider.guarded, rider.worse) == (True, True)
    assert found.sentence.endswith("the candidate loses more than 0.01 in the guarded classes 'rider'.")
    assert compare(ours, BASE, guard_classes=("road",)).outcome == "promote"


def test_guarded_class_on_few_images_is_reported_and_does_not_decide() -> None:
    theirs = model(around(0.6, 0.0), around(0.6, 0.0), seen=9)
    ours = model(around(0.9, 0.01), around(0.5, 0.01), seen=9)
    found = compare(ours, theirs, guard_classes=("rider",))
    assert found.outcome == "promote"
    assert (found.classes["rider"].guarded, found.classes["rider"].difference.units) == (False, 9)
    assert found.classes["rider"].difference.upper is not None
    assert found.classes["rider"].difference.upper < -0.01


def test_holm_counts_all_guarded_classes() -> None:
    """One class loses at p = 0.03 alone: below 0.05, and above it when two classes are tested."""
    images = 20
    spread = 0.1
    ours = model(around(0.6, 0.0, images), around(0.6 - 0.01 - 0.0455, spread, images))
    theirs = model(around(0.6, 0.0, images), around(0.6, 0.0, images))
    alone = compare(ours, theirs, guard_classes=("rider",)).classes["rider"]
    both = compare(ours, theirs, guard_classes=NAMES).classes["rider"]
    assert alone.p_value is not None
    assert 0.025 < alone.p_value < 0.05
    assert both.p_value == pytest.approx(2 * alone.p_value)
    assert (alone.worse, both.worse) == (True, False)


def test_one_unit_is_undecided_and_the_sentence_says_what_to_do() -> None:
    found = compare(model([0.9], [0.9]), model([0.1], [0.1]))
    assert (found.outcome, found.units_needed, found.difference.lower) == ("undecided", None, None)
    assert found.sentence.endswith("tells nothing about the spread: label more for `val`.")
    # So are many frames of one film.
    ours, theirs = model(around(0.9, 0.01), around(0.9, 0.01)), BASE
    rule = rule_of()
    assert compare_counts(ours, theirs, np.zeros(40, dtype=np.intp), NAMES, rule).outcome == "undecided"


def needed(value: float, error: float, units: int, **rule: Any) -> int | None:
    difference = Difference(value=value, standard_error=error, lower=-1.0, upper=1.0, method="bootstrap", units=units)
    return units_needed(difference, rule_of(**rule))


def test_number_of_units_that_would_decide() -> None:
    # ((1.6449 + 0.8416) * 0.02 * sqrt(50) / (0.01 + 0.005))^2 = 549.5
    assert needed(0.005, 0.02, 50) == 550
    # Mode `better`: the distance from 0 is a third. Below -0.01, the distance is that from the margin.
    assert needed(0.005, 0.02, 50, mode="better") == 4947
    assert needed(-0.025, 0.02, 50) == 550
    assert needed(-0.025, 0.02, 50, mode="better") == 550
    # Between the margin and 0, the mode `better` never decides.
    assert needed(-0.005, 0.02, 50, mode="better") is None
    assert needed(0.5, 0.01, 3) == 4
    # Next to a bound, the number is beyond what anybody labels, or what a float holds.
    for value in (1e-5, 1e-17, 1e-300, -0.01 - 1e-17):
        assert needed(value, 0.02, 50, mode="better") is None
    found = compare(model(around(0.6, 0.1), around(0.6, 0.1)), BASE)
    assert found.units_needed is not None
    assert f"about {found.units_needed - 40} more independent validation images will decide" in found.sentence
