"""Which images a canary gets."""

from __future__ import annotations

import math

import pytest

from service.releases.rollout.candidate_model import is_chosen

IMAGES = [f"image {number}".encode() for number in range(4000)]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_canary_gets_its_share(share: float) -> None:
    chosen = sum(is_chosen(image, "v1", share) for image in IMAGES)
    deviation = math.sqrt(len(IMAGES) * share * (1 - share))
    assert abs(chosen - len(IMAGES) * share) < 4 * deviation


def test_whole_share_is_every_image() -> None:
    assert all(is_chosen(image, "v1", 1.0) for image in IMAGES)


def test_same_image_always_gets_the_same_model_and_each_version_other_images() -> None:
    first, again, other = ([is_chosen(image, version, 0.5) for image in IMAGES] for version in ("v1", "v1", "v2"))
    assert first == again
    both = sum(a and b for a, b in zip(first, other, strict=True))
    assert 0.2 < both / len(IMAGES) < 0.3
