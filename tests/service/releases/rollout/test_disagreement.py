"""Disagreement of hand-worked masks."""

from __future__ import annotations

import numpy as np

from service.releases.rollout.disagreement import Disagreement, compare_masks


def test_disagreement_is_counted_by_class_of_the_active_model() -> None:
    active = np.array([[0, 0, 0, 0], [1, 1, 1, 2]], np.uint8)
    candidate = np.array([[0, 0, 0, 1], [1, 0, 2, 2]], np.uint8)
    found = compare_masks(active, candidate, ["sky", "road", "car", "pole"])
    assert found.pixels == {"sky": 4, "road": 3, "car": 1}
    assert found.different == {"sky": 1, "road": 2, "car": 0}
    assert found.share == 3 / 8


def test_disagreement_of_several_images_is_summed() -> None:
    assert Disagreement().share is None
    total = Disagreement()
    total.add(Disagreement(images=1, pixels={"a": 10}, different={"a": 1}))
    total.add(Disagreement(images=1, dropped=2, errors=3, pixels={"a": 10, "b": 20}, different={"a": 2, "b": 0}))
    assert (total.images, total.dropped, total.errors, total.share) == (2, 2, 3, 3 / 40)
    assert (total.pixels, total.different) == ({"a": 20, "b": 20}, {"a": 3, "b": 0})
