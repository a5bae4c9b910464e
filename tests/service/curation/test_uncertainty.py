"""The uncertainty of an image, worked by hand and compared with a naive implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.curation.uncertainty import BORDER_PX, CONFIDENT, uncertainty

SURE, UNSURE = 255, 100


def filled(height: int, width: int, value: int = 0) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def test_one_class_gives_the_share_of_unsure_pixels() -> None:
    confidence_HW = filled(4, 5, SURE)
    confidence_HW[0, :3] = UNSURE
    assert uncertainty(filled(4, 5), confidence_HW) == pytest.approx(3 / 20)


def test_share_is_averaged_over_the_predicted_classes() -> None:
    """20 columns of sky and 5 of a pole, of which 17 and 2 are more than 3 from the other: 0 and 2 of 8 pixels."""
    mask_HW, confidence_HW = filled(4, 25), filled(4, 25, SURE)
    mask_HW[:, 20:] = 7
    confidence_HW[:2, 24] = UNSURE
    assert uncertainty(mask_HW, confidence_HW) == pytest.approx((0 / 68 + 2 / 8) / 2)


def test_pixels_within_three_of_a_border_do_not_count() -> None:
    mask_HW = filled(9, 9)
    mask_HW[:, 4:] = 1  # columns 0 and 7, 8 are further away
    for column, expected in enumerate([0.5, 0, 0, 0, 0, 0, 0, 0.25, 0.25]):
        confidence_HW = filled(9, 9, SURE)
        confidence_HW[:, column] = UNSURE
        assert uncertainty(mask_HW, confidence_HW) == expected, column


def test_corners_of_the_image_are_no_borders() -> None:
    confidence_HW = filled(9, 9, SURE)
    confidence_HW[0, 0] = confidence_HW[8, 8] = UNSURE
    assert uncertainty(filled(9, 9, 3), confidence_HW) == pytest.approx(2 / 81)


def test_class_whose_pixels_are_all_near_a_border_does_not_count() -> None:
    mask_HW, confidence_HW = filled(9, 20), filled(9, 20, SURE)
    mask_HW[:, 10] = 1
    confidence_HW[:, 10] = UNSURE
    confidence_HW[:, 0] = UNSURE
    assert uncertainty(mask_HW, confidence_HW) == pytest.approx(1 / 13), "7 columns left, 6 right"


def test_all_pixels_count_if_all_are_near_a_border() -> None:
    mask_HW, confidence_HW = np.eye(4, dtype=np.uint8), filled(4, 4, SURE)
    confidence_HW[0, 0] = UNSURE
    assert uncertainty(mask_HW, confidence_HW) == pytest.approx((1 / 4 + 0) / 2)


def test_threshold_is_between_242_and_243() -> None:
    """242 / 255 is 0.949, 243 / 255 is 0.953."""
    assert [uncertainty(filled(1, 1), filled(1, 1, value)) for value in (242, 243)] == [1, 0]


def test_more_than_256_classes() -> None:
    mask_HW = np.full((8, 8), 700, np.uint16)
    assert uncertainty(mask_HW, filled(8, 8, UNSURE)) == 1


def naive(mask_HW: np.ndarray, confidence_HW: np.ndarray, border_px: int) -> float:
    height, width = mask_HW.shape
    reach = range(-border_px, border_px + 1)
    pixels = [(y, x) for y in range(height) for x in range(width)]
    counted = [
        (y, x)
        for y, x in pixels
        if all(
            mask_HW[y + down, x + right] == mask_HW[y, x]
            for down in reach
            for right in reach
            if 0 <= y + down < height and 0 <= x + right < width
        )
    ]
    shares: dict[int, list[bool]] = {}
    for y, x in counted or pixels:
        shares.setdefault(int(mask_HW[y, x]), []).append(confidence_HW[y, x] / 255 < CONFIDENT)
    return float(np.mean([np.mean(unsure) for unsure in shares.values()]))


@given(st.data())
def test_equals_a_naive_implementation(data: st.DataObject) -> None:
    size = data.draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    split = data.draw(st.tuples(st.integers(0, size[0]), st.integers(0, size[1])))
    mask_HW = np.zeros(size, np.uint8)
    mask_HW[: split[0], split[1] :] = 2
    confidence_HW = data.draw(arrays.arrays(np.uint8, size))
    border_px = data.draw(st.sampled_from([0, 1, 2, BORDER_PX, 5]))
    assert uncertainty(mask_HW, confidence_HW, border_px=border_px) == pytest.approx(
        naive(mask_HW, confidence_HW, border_px)
    )
