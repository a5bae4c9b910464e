"""The threshold of near-duplicates, and the copies by which it is measured."""

from __future__ import annotations

import numpy as np
import pytest

from service.curation.near_duplicates import altered_copies, duplicate_threshold
from tests.service.tiny_bundle import picture


def test_copies_have_the_size_of_the_image_and_differ_a_little() -> None:
    image_HW3 = picture(200, 150)
    copies = list(altered_copies(image_HW3))
    assert len(copies) == 3
    for copy in copies:
        assert (copy.shape, copy.dtype) == (image_HW3.shape, image_HW3.dtype)
        assert 0 < np.abs(copy.astype(int) - image_HW3).mean() < 60


def test_smallest_images_have_copies() -> None:
    assert [copy.shape for copy in altered_copies(np.full((1, 1, 3), 250, np.uint8))] == [(1, 1, 3)] * 3


def test_threshold_accepts_most_copies() -> None:
    copies = np.linspace(0.9, 1.0, 101)
    assert duplicate_threshold(copies, np.array([0.1, 0.5])) == pytest.approx(0.905)


def test_model_to_which_other_images_are_as_similar_as_copies_has_no_threshold() -> None:
    pairs = np.linspace(0, 0.99, 991)
    assert duplicate_threshold(np.array([0.97, 0.98]), pairs) is None
    copies = np.array([0.99, 0.999])
    assert duplicate_threshold(copies, pairs) == pytest.approx(0.99, abs=1e-3)
