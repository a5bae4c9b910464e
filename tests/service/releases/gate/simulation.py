"""Simulated pixel counts of two models on the same validation images, for many runs at once."""

# R runs, I images, K classes

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from service.releases.gate.statistics.class_counts import ClassCounts

IOU = 0.55
"""True mIoU of the first model."""


def runs(seed: int, *, count: int, images: int, gain: float = 0.0) -> Iterator[tuple[ClassCounts, ClassCounts]]:
    """Yield the counts of a candidate and of another model whose true mIoU is lower by `gain`.

    Images differ in size and difficulty, which both models share; each model has errors of its own. As many pixels are
    missed as are false, so that IoU = p / (2 - p), where p is the share of right pixels.
    """
    rng = np.random.default_rng(seed)
    truth_RIK = rng.gamma(4.0, 500.0, (count, images, 2)).astype(np.int64) + 1
    difficulty_RI1 = rng.uniform(-0.15, 0.15, (count, images, 1))
    models = []
    for iou in (IOU + gain, IOU):
        right_RIK = 2 * iou / (1 + iou) + difficulty_RI1 + rng.uniform(-0.1, 0.1, truth_RIK.shape)
        models.append(np.rint(truth_RIK * right_RIK).astype(np.int64))
    for truth_IK, candidate_IK, other_IK in zip(truth_RIK, *models, strict=True):
        yield ClassCounts(candidate_IK, truth_IK, truth_IK), ClassCounts(other_IK, truth_IK, truth_IK)


def rare_losses(
    rng: np.random.Generator, *, images: int, share: float = 0.05, loss: float = 0.5
) -> tuple[ClassCounts, ClassCounts]:
    """A candidate that is slightly better than the other model, but fails on this share of the images."""
    truth_IK = rng.gamma(4.0, 500.0, (images, 2)).astype(np.int64) + 1
    right_IK = 0.71 + rng.uniform(-0.15, 0.15, (images, 1)) + rng.uniform(-0.1, 0.1, (images, 2))
    fails_I1 = rng.random((images, 1)) < share
    ours_IK = np.where(fails_I1, right_IK - loss, right_IK + 0.02) + rng.uniform(-0.02, 0.02, (images, 2))
    ours, theirs = (np.rint(truth_IK * np.clip(each, 0, 1)).astype(np.int64) for each in (ours_IK, right_IK))
    return ClassCounts(ours, truth_IK, truth_IK), ClassCounts(theirs, truth_IK, truth_IK)


def rare_classes(seed: int, *, images: int, share: float, classes: int = 5) -> tuple[ClassCounts, ClassCounts]:
    """Two equally good models; all classes but the first are on this share of the images, in very different sizes."""
    rng = np.random.default_rng(seed)
    truth_IK = rng.gamma(0.5, 2000.0, (images, classes)).astype(np.int64)
    truth_IK[:, 1:] *= rng.random((images, classes - 1)) < share
    truth_IK[:, 0] += 50
    difficulty_I1 = rng.beta(4, 1.3, (images, 1))
    models = []
    for _ in range(2):
        right_IK = 0.6 * difficulty_I1 + 0.4 * rng.beta(5, 1.5, truth_IK.shape)
        tp_IK = (truth_IK * right_IK).astype(np.int64)
        false_IK = (truth_IK * (1 - right_IK) * rng.gamma(0.5, 2.0, truth_IK.shape)).astype(np.int64)
        models.append(ClassCounts(tp_IK, truth_IK, tp_IK + false_IK))
    every, present_K = np.arange(images), truth_IK.any(axis=0)
    first, second = (counts.select(every, np.flatnonzero(present_K)) for counts in models)
    return first, second
