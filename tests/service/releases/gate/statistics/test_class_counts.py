"""Counts of pixels by class, units, and the score that follows."""

from __future__ import annotations

import numpy as np
import pytest

from service.releases.gate.scoring import score
from service.releases.gate.statistics.calibration import calibration_error, confidence_histogram
from service.releases.gate.statistics.class_counts import ClassCounts, count_classes, mean_over_classes, number_units


def counts_of(truth: np.ndarray, predicted: np.ndarray, classes: int) -> ClassCounts:
    """Counts of one image."""
    return ClassCounts(*(each[None] for each in count_classes(truth, predicted, classes, 255)))


def test_miou_of_a_hand_made_example() -> None:
    truth = np.array([[0, 0, 1, 255], [0, 1, 1, 255]], dtype=np.uint8)
    predicted = np.array([[0, 1, 1, 0], [0, 1, 2, 2]], dtype=np.uint8)
    counts = counts_of(truth, predicted, 4)
    assert counts.tp_IK.tolist() == [[2, 2, 0, 0]]
    assert counts.truth_IK.tolist() == [[3, 3, 0, 0]]
    assert counts.found_IK.tolist() == [[2, 3, 1, 0]]
    found = score("v", "abcd", counts)
    # a: 2 of 3. b: 2 correct, 1 missed, 1 false. c: predicted once, not in the truth. d: in neither.
    assert found.per_class == {"a": pytest.approx(2 / 3), "b": pytest.approx(2 / 4), "c": 0.0, "d": None}
    assert found.miou == pytest.approx((2 / 3 + 2 / 4) / 3)
    assert found.miou_truth_classes == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert found.truth_classes == 2
    empty = score("v", "ab", ClassCounts(*np.zeros((3, 0, 2), dtype=np.int64)))
    assert (empty.miou, empty.miou_truth_classes, empty.per_class) == (0.0, 0.0, {"a": None, "b": None})


def test_mask_ids_that_are_no_class_are_wrong_pixels() -> None:
    truth = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    counts = counts_of(truth, np.array([[0, 7, 255, 7]], dtype=np.uint8), 2)
    assert (counts.tp_IK.tolist(), counts.truth_IK.tolist(), counts.found_IK.tolist()) == ([[1, 0]], [[2, 1]], [[1, 0]])
    assert counts.iou().tolist() == [0.5, 0.0]


def test_miou_equals_that_of_the_trainer() -> None:
    metrics = pytest.importorskip("trainer.evaluation.metrics", reason="compares with the trainer")
    torch = pytest.importorskip("torch", reason="compares with the trainer")
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 6, (20, 30)), rng.integers(0, 7, (20, 30))
    truth[:3] = 255
    expected = metrics.scores(
        metrics.confusion(torch.from_numpy(predicted), torch.from_numpy(truth), 8, 255), tuple("abcdefgh"), 1
    )
    found = score("v", "abcdefgh", counts_of(truth, predicted, 8))
    assert found.miou == pytest.approx(expected.miou, abs=1e-12)
    assert found.miou_truth_classes == pytest.approx(expected.miou_truth_classes, abs=1e-12)
    assert found.per_class == {name: pytest.approx(iou) if iou else iou for name, iou in expected.per_class.items()}


def test_images_of_a_group_are_one_unit() -> None:
    unit_I = number_units(["film", None, "film", None, "0"])
    assert unit_I.tolist() == [0, 1, 0, 2, 3]
    counts = ClassCounts(*(np.arange(10).reshape(5, 2) + start for start in (0, 100, 200)))
    summed = counts.by_unit(unit_I)
    assert summed.tp_IK.tolist() == [[4, 6], [2, 3], [6, 7], [8, 9]]
    assert summed.truth_IK.tolist() == [[204, 206], [102, 103], [106, 107], [108, 109]]
    np.testing.assert_array_equal(summed.iou(), counts.iou())


def test_classes_without_labels_are_not_in_the_mean() -> None:
    assert mean_over_classes(np.array([[1.0, np.nan], [0.25, 0.75]])).tolist() == [1.0, 0.5]


def test_calibration_error_equals_that_of_the_trainer() -> None:
    calibration = pytest.importorskip("trainer.evaluation.calibration", reason="compares with the trainer")
    torch = pytest.importorskip("torch", reason="compares with the trainer")
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, 256, 5000).astype(np.uint8)
    right = rng.random(5000) < (confidence / 255) ** 2
    sums = calibration.calibration_sums(
        torch.from_numpy(confidence).double() / 255, torch.from_numpy(right), torch.ones(5000, dtype=torch.bool)
    )
    expected = calibration.calibration_error(calibration.calibration_bins(sums))
    assert calibration_error(confidence_histogram(confidence, right)) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_a_hand_made_example() -> None:
    # 4 pixels at confidence 1.0, of which 3 are right; 2 at 0.2, none of which is.
    confidence = np.array([255, 255, 255, 255, 51, 51], dtype=np.uint8)
    right = np.array([True, True, True, False, False, False])
    assert calibration_error(confidence_histogram(confidence, right)) == pytest.approx((4 * 0.25 + 2 * 0.2) / 6)
    assert calibration_error(np.zeros((2, 256), dtype=np.int64)) == 0.0
