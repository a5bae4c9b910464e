"""Resizing in strips gives the same as resizing the whole image."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.segmentation.inference import resample
from service.segmentation.inference.resample import enlarged, resized

SIDES = st.integers(1, 60)
FEW = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def _narrow_strips() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "STRIP_PIXELS", 200)
        yield


@FEW
@given(SIDES, SIDES, SIDES, SIDES)
def test_resized_equals_pillow_on_the_whole_image(height: int, width: int, to_height: int, to_width: int) -> None:
    image_HW3 = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole = Image.fromarray(image_HW3).resize((to_width, to_height), Image.Resampling.BILINEAR)
    found = resized(image_HW3, (to_height, to_width))
    assert found.dtype == np.uint8
    # Pillow rounds the position of the strip, and then the weights.
    np.testing.assert_allclose(found.astype(int), np.asarray(whole).astype(int), atol=1)


@FEW
@given(SIDES, SIDES, st.integers(1, 200), st.integers(1, 200))
def test_enlarged_takes_the_pixel_under_each_centre(height: int, width: int, to_height: int, to_width: int) -> None:
    map_HW = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    found = enlarged(map_HW, (to_height, to_width))
    for y in {0, to_height // 2, to_height - 1}:
        for x in {0, to_width // 3, to_width - 1}:
            assert found[y, x] == map_HW[pixel_at(y, height, to_height), pixel_at(x, width, to_width)]
    assert found.dtype == map_HW.dtype


def pixel_at(place: int, before: int, after: int) -> int:
    return int((place + Fraction(1, 2)) * before / after)


def test_an_image_of_the_right_size_is_not_copied() -> None:
    image_HW3 = np.zeros((3, 5, 3), np.uint8)
    assert resized(image_HW3, (3, 5)) is image_HW3
