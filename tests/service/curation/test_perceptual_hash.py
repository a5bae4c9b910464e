"""The perceptual hash: hand-worked bits, a naive transform, copies and other images."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from service.curation.near_duplicates import altered_copies
from service.curation.perceptual_hash import perceptual_hash, similarity


def scene(seed: int, side: int = 96) -> np.ndarray:
    """Smooth random shapes, uint8 [side, side, 3]."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def naive_hash(grey_SS: np.ndarray) -> int:
    """The definition, term by term."""
    side = len(grey_SS)
    values = []
    for v in range(8):
        for u in range(8):
            terms = (
                grey_SS[y, x] * math.cos(math.pi / side * (y + 0.5) * v) * math.cos(math.pi / side * (x + 0.5) * u)
                for y in range(side)
                for x in range(side)
            )
            values.append(sum(terms))
    middle = sorted(values[1:])[31]
    return sum(1 << (63 - i) for i, value in enumerate(values) if i and value > middle + 1e-9)


def test_hash_equals_the_naive_transform() -> None:
    image_HW3 = np.repeat(np.random.default_rng(1).integers(0, 255, (32, 32, 1)), 3, axis=2).astype(np.uint8)
    assert perceptual_hash(image_HW3) == naive_hash(image_HW3[:, :, 0].astype(float))


def test_gradient_sets_the_odd_horizontal_frequencies_only() -> None:
    # Brighter to the left: all non-zero frequencies are in the first row, and the odd ones are positive.
    ramp = np.repeat(np.linspace(255, 0, 32)[None], 32, axis=0)
    image_HW3 = np.repeat(ramp[:, :, None], 3, axis=2).round().astype(np.uint8)
    odd = sum(1 << (63 - u) for u in (1, 3, 5, 7))
    assert perceptual_hash(image_HW3) & odd == odd
    assert perceptual_hash(image_HW3) >> 56 << 56 == perceptual_hash(image_HW3)


def test_image_of_one_colour_has_no_hash() -> None:
    assert perceptual_hash(np.full((20, 30, 3), 90, np.uint8)) == 0
    assert similarity(np.array([0, 5], np.uint64), 0).tolist() == [0, 0]


def test_similarity_is_the_share_of_equal_bits() -> None:
    hashes = np.array([0b1111, 0b1110, 2**64 - 1], np.uint64)
    assert similarity(hashes, 0b1111).tolist() == [1.0, 63 / 64, 4 / 64]


def test_altered_copies_are_more_similar_than_other_scenes() -> None:
    hashes = [perceptual_hash(scene(seed)) for seed in range(8)]
    for seed, value in enumerate(hashes):
        others = np.array([other for other in hashes if other != value], np.uint64)
        copies = np.array([perceptual_hash(copy) for copy in altered_copies(scene(seed))], np.uint64)
        assert similarity(copies[:2], value).min() >= 0.85, "compressed, brighter"
        assert similarity(copies, value).min() > similarity(others, value).max()
        assert similarity(others, value).max() < 0.9
        larger = np.asarray(Image.fromarray(scene(seed)).resize((200, 150)))
        assert similarity(copies[:1], perceptual_hash(larger))[0] >= 0.9
