"""Verdicts about a candidate whose class list differs from the classes of the active model."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.models.bundle import Bundle, read_bundle
from service.releases.gate.judge import judge as judge_for
from service.settings import Settings
from tests.service.class_lists import judged_by, model_list
from tests.service.releases.gate.judging import judge, samples_of
from tests.service.runs.conftest import CLASSES
from tests.service.tiny_bundle import COLORS, NAMES, write_bundle


@pytest.fixture
def without_white(tmp_path: Path) -> Bundle:
    """A model that lacks the class "white", and confuses red and green."""
    colors = (COLORS[1], COLORS[0], *COLORS[2:4])
    return read_bundle(write_bundle(tmp_path / "four", version="four", colors=colors, classes=CLASSES[:4]))


def test_models_with_other_ids_are_compared_by_class(good: Path, tmp_path: Path, settings: Settings) -> None:
    other = write_bundle(tmp_path / "reversed", version="other", colors=COLORS[::-1])
    verdict = judge(read_bundle(good), read_bundle(other), None, samples_of(), settings)
    assert (verdict.outcome, verdict.new_classes, verdict.same_ids, verdict.needs_person) == (
        "promote",
        {},
        False,
        False,
    )
    assert verdict.miou == (1.0, 1.0)
    assert verdict.active is not None
    assert verdict.active.per_class == dict.fromkeys(NAMES, 1.0)


def test_comparison_is_over_the_classes_of_both_and_a_new_class_is_reported(
    good: Path, without_white: Bundle, settings: Settings
) -> None:
    verdict = judge(read_bundle(good), without_white, None, samples_of(), settings)
    (comparison,) = verdict.comparisons
    assert set(comparison.classes) == set(NAMES) - {"white"}
    # White pixels do not count: the active model, which gives them other classes, is right about blue and black.
    assert [comparison.classes[name].other_iou for name in ("blue", "black", "red")] == [1.0, 1.0, 0.0]
    white = verdict.new_classes["white"]
    assert (white.iou, white.units, white.found_units, white.not_learnt) == (1.0, 3, 3, False)
    assert (verdict.outcome, verdict.same_ids, verdict.needs_person) == ("promote", False, False)
    assert "over 4 of 5 classes" in verdict.sentence
    assert verdict.sentence.endswith("IoU of new classes: 'white' 1.0000 on 3 images.")
    assert verdict.candidate is not None
    assert verdict.candidate.truth_classes == 5


def test_new_class_that_is_found_on_none_of_five_images_makes_the_verdict_undecided(
    without_white: Bundle, tmp_path: Path, settings: Settings
) -> None:
    blind = read_bundle(write_bundle(tmp_path / "blind", version="blind", colors=COLORS[:4], classes=CLASSES))
    for images, outcome, p_value in ((4, "promote", 1 / 16), (5, "undecided", 1 / 32)):
        verdict = judge(blind, without_white, None, samples_of(images), settings)
        white = verdict.new_classes["white"]
        assert (verdict.outcome, white.iou, white.found_units, white.p_value) == (outcome, 0.0, 0, p_value)
    assert "'white' on 0 of 5. Label more of them for training." in verdict.sentence


def test_first_model_of_a_class_list_is_for_a_person(good: Path, tmp_path: Path, settings: Settings) -> None:
    """It has nothing in common with the active model, or that is the starter model."""
    streets = [{"id": i, "name": name, "color": [i, i, i]} for i, name in enumerate(("sky", "road", "red"))]

    def streets_of(classes: int) -> Bundle:
        folder = tmp_path / f"streets{classes}"
        return read_bundle(
            write_bundle(folder, version=folder.name, colors=COLORS[:classes], classes=streets[:classes])
        )

    candidate = read_bundle(good)
    listed = model_list(candidate.manifest)
    starts = judged_by(listed, active_is_starter=True)
    for active, judged, message in (
        (streets_of(2), judged_by(listed), "streets2, which is active, has none of its classes."),
        (streets_of(3), starts, "streets3, which is active, is the starter model."),
    ):
        verdict = judge_for(candidate, active, None, samples_of(), settings, judged=judged)
        assert (verdict.outcome, verdict.needs_person) == ("undecided", True)
        assert verdict.sentence.startswith(f"This is the first model of the class list: {message}")
    # With its own classes, the starter model is compared as any other.
    verdict = judge_for(candidate, candidate, None, samples_of(), settings, judged=starts)
    assert (verdict.outcome, verdict.needs_person) == ("promote", False)
