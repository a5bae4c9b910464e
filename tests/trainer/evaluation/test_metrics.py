"""IoU, boundary IoU and calibration, on hand-made cases and against naive references."""

# K classes, H W pixels, L label maps

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.evaluation.boundary import boundary, boundary_counts, boundary_width, count_by_class
from trainer.evaluation.calibration import BINS, calibration_bins, calibration_error, calibration_sums
from trainer.evaluation.metrics import Scores, confusion, scores

IGNORE = 255


def test_miou_counts_a_class_that_is_only_predicted_as_0() -> None:
    """a: 3 of 4 right, b: 3 of 5, the others predicted as c; d is in neither. mmsegmentation, torchmetrics: 0.45."""
    truth = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1, IGNORE]])
    prediction = torch.tensor([[0, 0, 0, 2, 1, 1, 1, 2, 2, 3]])
    found = scores(confusion(prediction, truth, 4, IGNORE), ("a", "b", "c", "d"), 1)
    assert found.per_class == {"a": pytest.approx(0.75), "b": pytest.approx(0.6), "c": 0.0, "d": None}
    assert found.miou == pytest.approx(0.45)
    assert found.miou_truth_classes == pytest.approx(0.675)
    assert (found.miou_over, found.miou_truth_classes_over) == ("3 of 4 classes", "2 of 4 classes")
    assert found.in_truth == {"a": True, "b": True, "c": False, "d": False}
    assert found.pixel_accuracy == pytest.approx(6 / 9)


def test_boundary_iou_counts_a_class_that_is_only_predicted_as_0() -> None:
    counts_2K = torch.tensor([[6, 0, 0], [8, 4, 0]])
    found = scores(torch.tensor([[9, 1, 0], [0, 0, 0], [0, 0, 0]]), ("a", "b", "c"), 1, boundary_2K=counts_2K)
    assert found.boundary_per_class == {"a": 0.75, "b": 0.0, "c": None}
    assert found.boundary_iou == 0.375


def test_scores_without_labelled_pixels_count_no_class() -> None:
    found = scores(torch.zeros((2, 2), dtype=torch.int64), ("a", "b"), 1)
    assert (found.miou, found.miou_over) == (0.0, "0 of 2 classes")


@given(seed=st.integers(0, 1000), classes=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_confusion_equals_counting_pixel_by_pixel(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, classes, (7, 5), generator=generator)
    truth = torch.randint(-1, classes, (7, 5), generator=generator)
    truth[truth < 0] = IGNORE
    expected = torch.zeros((classes, classes), dtype=torch.int64)
    for true, predicted in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if true != IGNORE:
            expected[true, predicted] += 1
    assert torch.equal(confusion(prediction.to(torch.uint8), truth, classes, IGNORE), expected)


def test_boundary_counts_of_a_hand_made_case() -> None:
    """Two halves of a 6x6 image, the predicted border one column too far right; boundary regions are 1 pixel wide.

    Class 0: the truth has 3 columns, all boundary except rows 1-4 of the middle one: 14 pixels. The prediction has 4
    columns with 16 boundary pixels. Common: the 14 of the truth except rows 1-4 of its last column: 10.
    Class 1: the truth has 14 pixels again; the prediction has 2 columns, all boundary: 12. Common: the outer column and
    the ends of the inner one: 8.
    """
    truth_HW, prediction_HW = torch.zeros((2, 6, 6), dtype=torch.int64)
    truth_HW[:, 3:], prediction_HW[:, 4:] = 1, 1
    assert boundary_width(6, 6) == 1
    counts_2K = boundary_counts(prediction_HW, truth_HW, 2, IGNORE)
    assert counts_2K.tolist() == [[10, 8], [14 + 16 - 10, 14 + 12 - 8]]


def test_boundary_width_is_proportional_to_the_diagonal() -> None:
    assert boundary_width(1024, 2048) == 46
    assert boundary_width(360, 480) == 12
    assert boundary_width(3, 4) == 1


def naive_boundary(ids_HW: Tensor, known_HW: Tensor, distance: int) -> Tensor:
    """Per class: the mask minus its erosion by repeated 3x3 minima, with zeros outside the image."""
    result_HW = torch.zeros_like(known_HW)
    for name in set(ids_HW.flatten().tolist()):
        mask_HW = (ids_HW == name) | ~known_HW
        eroded_HW = mask_HW.clone()
        for _ in range(distance):
            padded = torch.nn.functional.pad(eroded_HW, (1, 1, 1, 1), value=False)
            shifted = [padded[i : i + mask_HW.shape[0], j : j + mask_HW.shape[1]] for i in range(3) for j in range(3)]
            eroded_HW = torch.stack(shifted).all(dim=0)
        result_HW |= (ids_HW == name) & ~eroded_HW
    return result_HW & known_HW


@given(seed=st.integers(0, 1000), height=st.integers(1, 24), width=st.integers(1, 24), distance=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_boundary_of_all_classes_equals_erosion_per_class(seed: int, height: int, width: int, distance: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    coarse_HW = torch.randint(0, 4, (6, 6), generator=generator)
    ids_HW = coarse_HW.repeat_interleave(4, 0).repeat_interleave(4, 1)[:height, :width]
    known_HW = torch.rand((height, width), generator=generator) < 0.9
    found_LHW = boundary(torch.stack([ids_HW, ids_HW]), known_HW, distance) & known_HW
    assert torch.equal(found_LHW[0], naive_boundary(ids_HW, known_HW, distance))
    assert torch.equal(found_LHW[1], found_LHW[0])


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_boundary_counts_equal_the_definition_per_class(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth_HW, prediction_HW = torch.randint(0, 3, (2, 5, 7), generator=generator).repeat_interleave(4, 1)
    truth_HW[torch.rand(truth_HW.shape, generator=generator) < 0.1] = IGNORE
    known_HW, width = truth_HW != IGNORE, boundary_width(*truth_HW.shape)
    counts_2K = boundary_counts(prediction_HW, truth_HW, 3, IGNORE)
    for name in range(3):
        regions = [naive_boundary(ids_HW, known_HW, width) & (ids_HW == name) for ids_HW in (prediction_HW, truth_HW)]
        assert counts_2K[:, name].tolist() == [
            int((regions[0] & regions[1]).sum()),
            int((regions[0] | regions[1]).sum()),
        ]


def test_ignored_pixels_create_no_boundary() -> None:
    truth_HW = torch.zeros((60, 60), dtype=torch.int64)
    truth_HW[20:40, 20:40] = IGNORE
    known_HW = truth_HW != IGNORE
    near_HW = boundary(torch.stack([truth_HW]), known_HW, 2)[0] & known_HW
    assert not near_HW[2:58, 2:58].any()
    assert near_HW[:2].all(), "the image border is a boundary, as in the authors' code"


def test_perfect_prediction_has_boundary_iou_1() -> None:
    truth_HW = torch.randint(0, 3, (9, 11), generator=torch.Generator().manual_seed(1))
    counts_2K = boundary_counts(truth_HW, truth_HW, 4, IGNORE)
    found = scores(confusion(truth_HW, truth_HW, 4, IGNORE), ("a", "b", "c", "d"), 1, boundary_2K=counts_2K)
    assert found.boundary_iou == 1.0
    assert found.boundary_per_class == {"a": 1.0, "b": 1.0, "c": 1.0, "d": None}


def test_count_by_class_counts_chosen_pixels_only() -> None:
    labels = torch.tensor([0, 1, 1, IGNORE, 2])
    assert count_by_class(labels, torch.tensor([True, True, False, False, True]), 3).tolist() == [1, 1, 1]


def test_calibration_error_of_a_hand_made_case() -> None:
    """Two pixels at 0.95, one right; two at 0.65, both right: (2 * 0.45 + 2 * 0.35) / 4."""
    confidence = torch.tensor([0.95, 0.95, 0.65, 0.65, 0.30])
    right = torch.tensor([True, False, True, True, False])
    counted = torch.tensor([True, True, True, True, False])
    bins = calibration_bins(calibration_sums(confidence, right, counted))
    assert calibration_error(bins) == pytest.approx(0.40)
    assert [each.pixels for each in bins if each.pixels] == [2, 2]
    assert bins[14].accuracy == 0.5
    assert bins[0].confidence is None


def test_bin_includes_its_upper_edge() -> None:
    edges = torch.tensor([0.0, 0.2, 0.4, 1.0], dtype=torch.float64)
    counted = torch.ones(4, dtype=torch.bool)
    sums_3M = calibration_sums(edges, counted, counted)
    assert sums_3M[0].nonzero().flatten().tolist() == [0, 2, 5, 14]


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_calibration_error_equals_the_definition(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(200, generator=generator, dtype=torch.float64)
    right, counted = torch.rand((2, 200), generator=generator) < 0.7
    expected, total = 0.0, int(counted.sum())
    for m in range(1, BINS + 1):
        chosen = counted & (confidence * BINS > m - 1) & (confidence * BINS <= m)
        if chosen.any():
            gap = right[chosen].double().mean() - confidence[chosen].double().mean()
            expected += int(chosen.sum()) / total * abs(float(gap))
    found = calibration_error(calibration_bins(calibration_sums(confidence, right, counted)))
    assert found == pytest.approx(expected, abs=1e-9)


def test_as_dict_omits_missing_scores_and_full_dict_round_trips() -> None:
    truth = torch.tensor([[0, 0, 1, 1]])
    counts_KK = confusion(truth, truth, 3, IGNORE)
    plain = scores(counts_KK, ("a", "b", "c"), 1)
    assert set(plain.as_dict()) == {"miou", "miou_over", "miou_truth_classes", "per_class", "pixel_accuracy", "images"}
    known = torch.ones_like(truth, dtype=torch.bool)
    full = scores(
        counts_KK,
        ("a", "b", "c"),
        1,
        boundary_2K=boundary_counts(truth, truth, 3, IGNORE),
        calibration_3M=calibration_sums(torch.full(truth.shape, 0.8), known, known),
    )
    assert full.as_dict()["ece"] == pytest.approx(0.2)
    assert "confusion" not in full.as_dict()
    text = json.dumps(full.as_full_dict(), allow_nan=False)
    assert Scores.from_full_dict(json.loads(text)) == full
