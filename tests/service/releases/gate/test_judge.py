"""Judging real bundles on real images: candidate, active model and best version so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from service.errors import BundleInvalid, ClassUnknown, NothingCompared
from service.models.bundle import Bundle, read_bundle
from service.releases.gate.best_version import find_best
from service.releases.gate.judge import check_guard_classes
from service.releases.gate.validation_samples import Sample
from service.segmentation.decode import Limits
from service.segmentation.formats.rgb import ValueRange
from service.settings import Settings
from service.state import State
from tests.service.class_lists import TINY
from tests.service.releases.gate.judging import judge, samples_of
from tests.service.runs.conftest import BAD, CLASSES, GOOD
from tests.service.tiny_bundle import COLORS, NAMES, write_bundle, write_manifest

MakeSettings = Callable[..., Settings]
LIMITS = Limits(max_bytes=10**6, max_pixels=10**6)


@pytest.fixture
def fair(tmp_path: Path) -> Bundle:
    """A model that confuses red and green."""
    colors = (COLORS[1], COLORS[0], *COLORS[2:])
    return read_bundle(write_bundle(tmp_path / "fair", version="fair", colors=colors, classes=CLASSES))


def test_better_candidate_is_promoted_and_worse_one_is_rejected(good: Path, bad: Path, settings: Settings) -> None:
    better = judge(read_bundle(good), read_bundle(bad), None, samples_of(), settings, uses=7)
    assert (better.outcome, better.images, better.units, better.validation_set_uses) == ("promote", 3, 3, 7)
    assert better.pixels == 3 * 30 * 40
    assert better.candidate is not None
    assert better.active is not None
    assert better.best is None
    assert (better.candidate.version, better.active.version) == (GOOD, BAD)
    assert better.candidate.miou == 1.0
    assert set(better.candidate.per_class) == set(NAMES)
    assert better.sentence.endswith("the candidate is not worse by 0.01 or more.")
    worse = judge(read_bundle(bad), read_bundle(good), None, samples_of(), settings)
    assert worse.outcome == "reject"
    assert "against 1.0000 of the active model over 5 of 5 classes, on 3 validation images: " in worse.sentence
    assert worse.sentence.endswith("the candidate is worse by more than 0.01.")


def test_equal_model_is_not_worse_and_not_better(good: Path, make_settings: MakeSettings) -> None:
    same, better = make_settings(), make_settings(gate_mode="better")
    assert judge(read_bundle(good), read_bundle(good), None, samples_of(), same).outcome == "promote"
    verdict = judge(read_bundle(good), read_bundle(good), None, samples_of(), better)
    assert verdict.outcome == "undecided"
    assert verdict.sentence.endswith("If the difference stays the same, no practicable number of labels will decide.")


def test_one_image_or_one_group_is_not_enough_evidence(good: Path, bad: Path, settings: Settings) -> None:
    for samples in (samples_of(1), samples_of(6, groups=1)):
        verdict = judge(read_bundle(good), read_bundle(bad), None, samples, settings)
        assert (verdict.outcome, verdict.units) == ("undecided", 1)
    verdict = judge(read_bundle(good), read_bundle(bad), None, samples_of(6, groups=3), settings)
    assert (verdict.outcome, verdict.images, verdict.units) == ("promote", 6, 3)
    assert "on 6 validation images, 3 independent: " in verdict.sentence


def test_latency_and_calibration_are_reported(good: Path, bad: Path, settings: Settings) -> None:
    verdict = judge(read_bundle(good), read_bundle(bad), None, samples_of(), settings)
    for score in (verdict.candidate, verdict.active):
        assert score is not None
        assert score.latency_ms is not None
        assert score.latency_ms > 0
        assert score.calibration_error is not None
        assert 0 < score.calibration_error < 1
    assert verdict.candidate is not None
    assert verdict.active is not None
    assert verdict.candidate.calibration_error is not None
    assert verdict.active.calibration_error is not None
    # Both have the same confidences, and nearly all pixels of the bad one are wrong.
    assert verdict.candidate.calibration_error < verdict.active.calibration_error


def test_verdict_is_strict_json(good: Path, bad: Path, settings: Settings) -> None:
    for samples in (samples_of(1), samples_of(3), samples_of(31)):
        verdict = judge(read_bundle(good), read_bundle(bad), None, samples, settings)
        text = json.dumps(asdict(verdict), allow_nan=False)
        found = json.loads(text)
        assert found["rule"] == {
            "margin": 0.01,
            "level": 0.05,
            "mode": "not_worse",
            "guard_classes": [],
            "draws": 4000,
            "seed": 0,
        }
        assert found["comparisons"][0]["difference"]["units"] == verdict.units
        assert set(found["comparisons"][0]["classes"]) <= set(NAMES)


def test_labels_without_a_pixel_that_counts_are_an_error(good: Path, bad: Path, settings: Settings) -> None:
    for samples in (samples_of(2, empty=True), samples_of(0)):
        for active in (read_bundle(bad), None):
            with pytest.raises(NothingCompared, match=r"compared with nothing: label some .*split=val"):
                judge(read_bundle(good), active, None, samples, settings)


def test_candidate_that_finds_nothing_is_rejected(fair: Bundle, settings: Settings) -> None:
    """Also against a model that finds nothing either: a mIoU of 0 is not worse than 0."""

    def samples(ranges: Collection[ValueRange | None]) -> Iterator[Sample]:
        for _ in range(4):
            red = np.broadcast_to(np.array(COLORS[0], np.uint8), (30, 40, 3)).copy()
            yield Sample(dict.fromkeys(ranges, red), np.zeros((30, 40), np.uint8))

    for active in (fair, None):
        verdict = judge(fair, active, None, samples, settings)
        assert (verdict.outcome, verdict.sentence) == (
            "reject",
            "The candidate finds no labelled pixel of the validation images.",
        )


def test_without_an_active_model_the_candidate_is_promoted(good: Path, settings: Settings) -> None:
    verdict = judge(read_bundle(good), None, None, samples_of(), settings)
    assert (verdict.outcome, verdict.sentence) == ("promote", "No model was active.")
    assert verdict.candidate is not None
    assert verdict.candidate.miou == 1.0


def test_candidate_whose_probe_fails_is_rejected(good: Path, bad: Path, fair: Bundle, settings: Settings) -> None:
    (good / "probe.npz").write_bytes((bad / "probe.npz").read_bytes())
    write_manifest(good, version=GOOD)
    verdict = judge(read_bundle(good), read_bundle(bad), None, samples_of(), settings)
    assert verdict.outcome == "reject"
    assert "probe failed" in verdict.sentence
    with pytest.raises(BundleInvalid, match="probe failed"):
        judge(read_bundle(bad), read_bundle(good), None, samples_of(), settings)
    # A best version that does not run is no reason to fail.
    verdict = judge(fair, fair, read_bundle(good), samples_of(), settings)
    assert (verdict.outcome, verdict.best) == ("promote", None)


def test_model_that_fails_on_a_validation_image(good: Path, bad: Path, tmp_path: Path, settings: Settings) -> None:
    """As candidate it is rejected, as best version it is left out, and without the active one nothing is decided."""
    failing = read_bundle(write_bundle(tmp_path / "failing", version="failing", max_height=30))
    verdict = judge(failing, read_bundle(bad), None, samples_of(), settings)
    assert (verdict.outcome, verdict.candidate) == ("reject", None)
    assert verdict.sentence.startswith("failing fails on a validation image (")
    verdict = judge(read_bundle(good), read_bundle(bad), failing, samples_of(), settings)
    assert (verdict.outcome, verdict.best) == ("promote", None)
    with pytest.raises(BundleInvalid, match=r"^failing fails on a validation image .* Activate another version"):
        judge(read_bundle(good), failing, None, samples_of(), settings)


def test_candidate_must_also_match_the_best_version_so_far(
    good: Path, fair: Bundle, tmp_path: Path, make_settings: MakeSettings
) -> None:
    """It equals the active model, and an earlier version was better than both."""
    verdict = judge(fair, fair, read_bundle(good), samples_of(), make_settings())
    assert [(each.role, each.outcome) for each in verdict.comparisons] == [("active", "promote"), ("best", "reject")]
    assert verdict.outcome == "reject"
    assert verdict.best is not None
    assert verdict.best.version == GOOD
    assert "against 1.0000 of the best version so far" in verdict.sentence
    # It need not be better than the best version, only not worse.
    better = make_settings(gate_mode="better")
    twin = read_bundle(write_bundle(tmp_path / "twin", version="twin"))
    verdict = judge(twin, fair, read_bundle(good), samples_of(), better)
    assert [(each.mode, each.outcome) for each in verdict.comparisons] == [
        ("better", "promote"),
        ("not_worse", "promote"),
    ]
    assert verdict.outcome == "promote"


def test_best_version_is_the_one_with_the_highest_score_that_has_been_active(loop: State, tmp_path: Path) -> None:
    def add(
        version: str, miou: float, *, active: bool = True, colors: tuple[tuple[int, int, int], ...] = COLORS
    ) -> Bundle:
        bundle = write_bundle(tmp_path / version, version=version, colors=colors, metrics={"miou": miou})
        loop.models.import_folder(bundle)
        if active:
            loop.models.activate(version, "test")
        return loop.models.bundle(version)

    first = loop.models.bundle(BAD)
    candidate = add("candidate", 0.99, active=False)
    # The active model is the best, and the one that was never active does not count.
    assert find_best(loop.models, candidate, first, loop.models.classes.listed) is None
    add("b60", 0.6)
    best = add("b70", 0.7)
    add("four", 0.9, colors=COLORS[:4])
    active = add("b65", 0.65)
    found = find_best(loop.models, candidate, active, loop.models.classes.listed)
    assert found == best
    loop.models.mark("b70", "failed", error="does not load here")
    assert find_best(loop.models, candidate, active, loop.models.classes.listed) is None
    # A damaged one is passed over.
    damaged = add("b80", 0.8)
    (damaged.folder / "manifest.json").write_text("{")
    assert find_best(loop.models, candidate, active, loop.models.classes.listed) is None
    # The candidate of a run that is repeated after its activation is not its own opponent.
    loop.models.activate("candidate", "test")
    assert find_best(loop.models, candidate, active, loop.models.classes.listed) is None


def test_unknown_guard_class_is_an_error_before_training(make_settings: MakeSettings) -> None:
    check_guard_classes(make_settings(gate_guard_classes=("red", "blue")), TINY)
    with pytest.raises(ClassUnknown, match="MASKLOOP_GATE_GUARD_CLASSES has 'rde', and the classes are 'red'"):
        check_guard_classes(make_settings(gate_guard_classes=("rde", "blue")), TINY)


def test_guard_class_on_few_images_is_named(good: Path, bad: Path, make_settings: MakeSettings) -> None:
    settings = make_settings(gate_guard_classes=("red", "blue"))
    verdict = judge(read_bundle(good), read_bundle(bad), None, samples_of(), settings)
    assert (verdict.outcome, verdict.unguarded) == ("promote", ("red", "blue"))
    assert verdict.sentence.endswith("show them, or the other model lacks them: 'red', 'blue'.")
    verdict = judge(read_bundle(good), read_bundle(bad), None, samples_of(12), settings)
    assert verdict.unguarded == ()
