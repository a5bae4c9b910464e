"""Gate: mIoU, and the comparison of a candidate with the active model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from service.errors import BundleInvalid
from service.models.bundle import Bundle, read_bundle
from service.runs.gate import Pair, compare, confusion, score
from service.settings import Settings
from tests.service.runs.conftest import BAD, GOOD
from tests.service.tiny_bundle import COLORS, NAMES, nearest, picture, write_bundle, write_manifest


def pairs(_bundle: Bundle) -> Iterator[Pair]:
    for seed in range(3):
        image = picture(seed=seed)
        yield image, nearest(image, COLORS)


def test_miou_of_a_hand_made_example() -> None:
    truth = np.array([[0, 0, 1, 255], [0, 1, 1, 255]], dtype=np.uint8)
    predicted = np.array([[0, 1, 1, 0], [0, 1, 2, 2]], dtype=np.uint8)
    matrix = confusion(truth, predicted, 4, 255)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    found = score("v", "abcd", matrix)
    # a: 2 of 3. b: 2 correct, 1 missed, 1 false. c: predicted once, not in the truth. d: in neither.
    assert found.per_class == {"a": pytest.approx(2 / 3), "b": pytest.approx(2 / 4), "c": 0.0, "d": None}
    assert found.miou == pytest.approx((2 / 3 + 2 / 4) / 3)
    assert found.miou_truth_classes == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert found.truth_classes == 2
    empty = score("v", "ab", np.zeros((2, 2), dtype=np.int64))
    assert (empty.miou, empty.miou_truth_classes, empty.per_class) == (0.0, 0.0, {"a": None, "b": None})


def test_miou_equals_that_of_the_trainer() -> None:
    metrics = pytest.importorskip("trainer.evaluation.metrics", reason="compares with the trainer")
    torch = pytest.importorskip("torch", reason="compares with the trainer")
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 6, (20, 30)), rng.integers(0, 7, (20, 30))
    truth[:3] = 255
    expected = metrics.scores(
        metrics.confusion(torch.from_numpy(predicted), torch.from_numpy(truth), 8, 255), tuple("abcdefgh"), 1
    )
    found = score("v", "abcdefgh", confusion(truth, predicted, 8, 255))
    assert found.miou == pytest.approx(expected.miou, abs=1e-12)
    assert found.miou_truth_classes == pytest.approx(expected.miou_truth_classes, abs=1e-12)
    assert found.per_class == {name: pytest.approx(iou) if iou else iou for name, iou in expected.per_class.items()}


def test_better_candidate_is_accepted_and_worse_one_is_not(
    good: Path, bad: Path, loop_settings: Callable[..., Settings]
) -> None:
    settings = loop_settings()
    better = compare(read_bundle(good), read_bundle(bad), pairs, settings)
    assert better.accepted
    assert better.active is not None
    assert better.candidate is not None
    assert (better.candidate.version, better.active.version, better.images) == (GOOD, BAD, 3)
    assert better.candidate.miou == 1.0
    assert set(better.candidate.per_class) == set(NAMES)
    worse = compare(read_bundle(bad), read_bundle(good), pairs, settings)
    assert not worse.accepted
    assert "against 1.0000 over 5 of 5 classes, on 3 images" in worse.reason
    assert compare(read_bundle(bad), read_bundle(good), pairs, loop_settings(gate_tolerance_miou=1.0)).accepted
    assert compare(read_bundle(good), read_bundle(good), pairs, settings).accepted
    assert compare(read_bundle(bad), None, pairs, settings).accepted


def test_candidate_whose_probe_fails_is_rejected(good: Path, bad: Path, tmp_path: Path, settings: Settings) -> None:
    (good / "probe.npz").write_bytes((bad / "probe.npz").read_bytes())
    write_manifest(good, version=GOOD)
    verdict = compare(read_bundle(good), read_bundle(bad), pairs, settings)
    assert not verdict.accepted
    assert "probe failed" in verdict.reason
    with pytest.raises(BundleInvalid, match="probe failed"):
        compare(read_bundle(bad), read_bundle(good), pairs, settings)


def test_candidate_is_rejected_if_the_active_model_has_other_classes(
    good: Path, tmp_path: Path, settings: Settings
) -> None:
    other = write_bundle(tmp_path / "reversed", version="other", colors=COLORS[::-1])
    verdict = compare(read_bundle(good), read_bundle(other), pairs, settings)
    assert not verdict.accepted
    assert "other classes" in verdict.reason
