"""Which images to label: hand-worked choices and a naive reference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from service.curation.centroids import central_images
from service.curation.gaussian_kernel import kernel, median_distance
from service.curation.herding import flattened, herd, herding_width

NONE = np.zeros((0, 2), np.float32)


def points(*pairs: tuple[float, float]) -> np.ndarray:
    return np.array(pairs, dtype=np.float32)


def naive_herd(images: np.ndarray, weights: np.ndarray, labelled: np.ndarray, width: float, count: int) -> list[int]:
    """Greedy choice by the definition, with the whole sum for every candidate."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return math.exp(-float(((a - b) ** 2).sum()) / (2 * width**2))

    def covered(chosen: list[np.ndarray]) -> float:
        return sum(float(u) * max((k(x, s) for s in chosen), default=0) for x, u in zip(images, weights, strict=True))

    picked: list[int] = []
    for _ in range(count):
        rest = [i for i in range(len(images)) if i not in picked]
        picked.append(max(rest, key=lambda i: covered([*labelled, *(images[j] for j in picked), images[i]])))
    return picked


@pytest.mark.parametrize("seed", range(4))
def test_lazy_choice_equals_the_naive_greedy_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(30, 5)).astype(np.float32)
    weights = rng.uniform(size=30).astype(np.float32)
    labelled = rng.normal(size=(seed, 5)).astype(np.float32)
    assert herd(images, images, weights, labelled, width=1.5, count=8) == naive_herd(images, weights, labelled, 1.5, 8)


def test_middle_of_the_largest_group_is_chosen_first_and_each_group_once() -> None:
    images = points((0, 0), (1, 0), (2, 0), (50, 0), (51, 0))
    assert herd(images, images, np.ones(5, np.float32), NONE, width=1.0, count=2)[0] == 1
    assert set(herd(images, images, np.ones(5, np.float32), NONE, width=1.0, count=2)) in ({1, 3}, {1, 4})


def test_labelled_images_count_as_chosen() -> None:
    images = points((0, 0), (1, 0), (2, 0), (50, 0))
    assert herd(images, images, np.ones(4, np.float32), points((1, 0)), width=1.0, count=1) == [3]


def test_uncertain_images_are_preferred_where_density_is_equal() -> None:
    images = points((0, 0), (50, 0), (100, 0))
    assert herd(images, images, np.array([1, 3, 2], np.float32), NONE, width=1.0, count=3) == [1, 2, 0]


def test_no_more_are_chosen_than_there_are() -> None:
    images = points((0, 0), (0, 0))
    assert sorted(herd(images, images, np.ones(2, np.float32), NONE, width=1.0, count=10)) == [0, 1]


def test_kernel_and_widths_of_a_right_triangle() -> None:
    corners = points((0, 0), (3, 0), (0, 4))
    assert median_distance(corners) == pytest.approx(4)
    assert herding_width(corners, corners[:1]) == pytest.approx((0 + 3 + 4) / 3)
    assert herding_width(corners, NONE) == pytest.approx(4)
    expected = [[1, math.exp(-9 / 8), math.exp(-2)], [math.exp(-9 / 8), 1, math.exp(-25 / 8)]]
    np.testing.assert_allclose(kernel(corners[:2], corners, 2.0), expected, rtol=1e-5)


def test_width_shrinks_as_labels_grow() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(500, 8)).astype(np.float32)
    widths = [herding_width(images, images[:labels]) for labels in (1, 10, 100, 500)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > 0
    assert herding_width(np.repeat(images[:1], 5, axis=0), images[:0]) > 0


def test_uncertainty_counts_only_as_labels_grow() -> None:
    uncertainty = np.array([0.1, 0.3])
    np.testing.assert_allclose(flattened(uncertainty, 0, 3), [1, 1])
    np.testing.assert_allclose(flattened(uncertainty, 30, 3), [0.75, 1.25])
    np.testing.assert_allclose(flattened(uncertainty, 10**9, 3), [0.5, 1.5], rtol=1e-5)
    np.testing.assert_allclose(flattened(np.zeros(2), 10, 3), [1, 1])


def test_without_labels_one_image_of_each_group_is_central() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([(0, 0), (10, 0), (0, 10)])
    groups = np.repeat([0, 1, 2], (20, 30, 10))
    images = (centres[groups] + rng.normal(scale=0.1, size=(60, 2))).astype(np.float32)
    chosen = central_images(images, 3, rng)
    assert groups[chosen].tolist() == [1, 0, 2], "the largest group first"
    first = images[groups == 1]
    nearest = ((first - first.mean(axis=0)) ** 2).sum(axis=1).argmin()
    np.testing.assert_array_equal(images[chosen[0]], first[nearest])


def test_equal_images_are_each_chosen_once() -> None:
    images = np.zeros((6, 2), np.float32)
    chosen = central_images(images, 4, np.random.default_rng(0))
    assert len(set(chosen)) == 4
    assert central_images(images, 9, np.random.default_rng(0)) == [0, 1, 2, 3, 4, 5]
