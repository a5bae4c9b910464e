"""Outlines: exact without simplification, and within the tolerance with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.errors import ImageTooLarge
from service.segmentation.output.polygons import outlines

Bits = np.ndarray[Any, np.dtype[np.bool_]]


def outline(region: Bits, **options: float) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the outlines of one region."""
    return outlines(region.astype(np.uint8), **options).get(1, [])  # type: ignore[arg-type]


def fill(rings: list[np.ndarray[Any, np.dtype[np.int64]]], shape: tuple[int, int]) -> Bits:
    """Fill by the even-odd rule at pixel centres: the slow reference."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, dtype=bool)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                crosses = (y > min(y0, y1)) & (y < max(y0, y1)) & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
                inside ^= crosses
    return inside


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=200, deadline=None)
def test_exact_outlines_fill_to_the_region(region: Bits) -> None:
    rings = outline(region, tolerance_px=0, min_area_px=0)
    np.testing.assert_array_equal(fill(rings, (region.shape[0], region.shape[1])), region)


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)))
@settings(max_examples=100, deadline=None)
def test_outlines_of_all_classes_equal_those_of_each_class_alone(mask: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    for tolerance_px in (0.0, 1.5):
        rings_by_class = outlines(mask, tolerance_px=tolerance_px, min_area_px=2)
        for class_id in range(4):
            rings = [ring.tolist() for ring in rings_by_class.get(class_id, [])]
            alone = outline(mask == class_id, tolerance_px=tolerance_px, min_area_px=2)
            assert rings == [ring.tolist() for ring in alone]
    exact = outlines(mask.astype(np.uint16) * 9000, tolerance_px=0, min_area_px=0)
    for class_id in range(4):
        shape = (mask.shape[0], mask.shape[1])
        np.testing.assert_array_equal(fill(exact.get(class_id * 9000, []), shape), mask == class_id)


@given(arrays(np.bool_, st.tuples(st.integers(3, 16), st.integers(3, 16))), st.floats(0.1, 5))
@settings(max_examples=60, deadline=None)
def test_removed_corners_lie_within_the_tolerance(region: Bits, tolerance_px: float) -> None:
    exact = outline(region, tolerance_px=0, min_area_px=0)
    simple = outline(region, tolerance_px=tolerance_px, min_area_px=0)
    assert len(exact) == len(simple)
    for ring, kept in zip(exact, simple, strict=True):
        assert len(kept) >= 3
        indices: list[int] = []
        for corner in kept.tolist():
            # A ring may pass through the same corner twice.
            indices.append(ring.tolist().index(corner, indices[-1] + 1 if indices else 0))
        for begin, end in zip(indices, [*indices[1:], len(ring)], strict=True):
            a, b = ring[begin], ring[end % len(ring)]
            for point in ring[begin + 1 : end]:
                along, offset = b - a, point - a
                across = abs(along[0] * offset[1] - along[1] * offset[0]) / max(np.hypot(*along), 1)
                assert across <= tolerance_px


def test_simplifying_a_comb_is_not_quadratic() -> None:
    """Equal teeth split off one by one: the worst case of the Douglas-Peucker method."""
    region = np.zeros((4, 20_000), dtype=bool)
    region[0], region[:, ::2] = True, True
    (ring,) = outline(region, tolerance_px=0.5)
    assert len(ring) > 20_000


def test_mask_with_too_many_corners_is_rejected() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (400, 400), dtype=np.uint8)
    with pytest.raises(ImageTooLarge, match="without polygons"):
        outlines(noise, max_corners=10_000)


def test_single_pixel_is_a_square() -> None:
    (ring,) = outline(np.array([[False, True]]), tolerance_px=0, min_area_px=0)
    assert sorted(map(tuple, ring.tolist())) == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_hole_is_a_second_ring() -> None:
    region = np.ones((5, 5), dtype=bool)
    region[2, 2] = False
    outer, inner = outline(region, tolerance_px=0, min_area_px=0)
    assert len(outer) == len(inner) == 4
    assert (outer.min(), outer.max(), inner.min(), inner.max()) == (0, 5, 2, 3)


def test_pixels_that_touch_at_a_corner_are_two_rings() -> None:
    assert len(outline(np.eye(2, dtype=bool), min_area_px=0)) == 2


def test_small_regions_are_left_out() -> None:
    region = np.zeros((20, 20), dtype=bool)
    region[0, 0] = region[5:15, 5:15] = True
    assert len(outline(region)) == 1


def test_empty_region_has_no_outline() -> None:
    assert outline(np.zeros((4, 4), dtype=bool)) == []


@pytest.mark.parametrize("radius", [10, 40])
def test_simplified_circle_has_few_corners_and_stays_within_a_pixel(radius: int) -> None:
    y, x = np.mgrid[: 2 * radius + 4, : 2 * radius + 4] - radius - 2
    region = x**2 + y**2 <= radius**2
    (exact,), (simple,) = outline(region, tolerance_px=0), outline(region)
    assert len(simple) < len(exact) / 2
    wrong = fill([simple], (region.shape[0], region.shape[1])) != region
    assert wrong.sum() < 2 * np.pi * radius


def test_noisy_mask_is_not_quadratic() -> None:
    region = np.random.default_rng(0).random((600, 600)) > 0.5
    assert outline(region)  # pytest's timeout would end a quadratic search
