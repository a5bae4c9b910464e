"""The promotion gate: compare the candidate with the active model on the validation images of the run.

Both run in the serving engine, after their probes passed in this process. The metric is mIoU over all pixels and the
classes in the ground truth. These are the same for both models; the classes that a model predicts are not.
"""

# H, W pixels; K classes; rows of a confusion matrix are the ground truth, columns the prediction

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import BundleInvalid
from service.models.bundle import Bundle
from service.models.loading import load_model
from service.settings import Settings

Confusion = npt.NDArray[np.int64]
Pair = tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Score:
    """IoU of a model on the validation images, 0..1."""

    version: str
    miou: float
    """Mean over the classes in ground truth or prediction, as the trainer reports it."""
    miou_truth_classes: float
    """Mean over the classes in the ground truth."""
    truth_classes: int
    """Number of classes in the ground truth."""
    per_class: dict[str, float | None]
    """By class name; None for a class in neither."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Decision of the gate."""

    accepted: bool
    reason: str
    images: int
    candidate: Score | None
    """None if it does not run or its probe fails."""
    active: Score | None
    """None if there was none, or it has other classes."""


def compare(
    candidate: Bundle, active: Bundle | None, pairs: Callable[[Bundle], Iterable[Pair]], settings: Settings
) -> Verdict:
    """Compare two models on the same images; `pairs` yields them for a bundle: uint8 [H, W, 3] and ids [H, W].

    Raises BundleInvalid if the active bundle is broken or its probe fails.
    """
    try:
        after, images = _score(candidate, pairs, settings)
    except BundleInvalid as error:
        return Verdict(accepted=False, reason=str(error), images=0, candidate=None, active=None)
    if active is None:
        return Verdict(accepted=True, reason="no model was active", images=images, candidate=after, active=None)
    if [c.name for c in active.manifest.classes] != [c.name for c in candidate.manifest.classes]:
        reason = f"{active.manifest.version} was activated during the run and has other classes: start a new run"
        return Verdict(accepted=False, reason=reason, images=images, candidate=after, active=None)
    before, _ = _score(active, pairs, settings)
    new, old = after.miou_truth_classes, before.miou_truth_classes
    accepted = new >= old - settings.gate_tolerance_miou
    over = f"{after.truth_classes} of {len(after.per_class)} classes"
    reason = f"mIoU {new:.4f} against {old:.4f} over {over}, on {images} images"
    return Verdict(accepted=accepted, reason=reason, images=images, candidate=after, active=before)


def confusion(truth_HW: npt.NDArray[Any], found_HW: npt.NDArray[Any], classes: int, ignore: int) -> Confusion:
    """Compute the confusion matrix int64 [K, K], without pixels whose ground truth is `ignore`."""
    counted = truth_HW != ignore
    cells = truth_HW[counted].astype(np.int64) * classes + found_HW[counted]
    matrix_KK = np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    return matrix_KK.astype(np.int64)


def score(version: str, names: Sequence[str], confusion_KK: Confusion) -> Score:
    """Compute the score of a model from its confusion matrix over all images."""
    hits_K = np.diagonal(confusion_KK).astype(np.float64)
    truth_K, found_K = confusion_KK.sum(axis=1), confusion_KK.sum(axis=0)
    union_K = truth_K + found_K - hits_K
    iou_K = hits_K / np.maximum(union_K, 1)
    per_class = [float(iou) if union else None for iou, union in zip(iou_K, union_K, strict=True)]
    return Score(
        version=version,
        miou=_mean(iou_K[union_K > 0]),
        miou_truth_classes=_mean(iou_K[truth_K > 0]),
        truth_classes=int((truth_K > 0).sum()),
        per_class=dict(zip(names, per_class, strict=True)),
    )


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.sum() / max(len(values), 1))


def _score(bundle: Bundle, pairs: Callable[[Bundle], Iterable[Pair]], settings: Settings) -> tuple[Score, int]:
    engine, manifest = load_model(bundle, settings).engine, bundle.manifest
    classes, images = len(manifest.classes), 0
    matrix_KK = np.zeros((classes, classes), dtype=np.int64)
    for image_HW3, mask_HW in pairs(bundle):
        matrix_KK += confusion(mask_HW, engine.run(image_HW3).mask_HW, classes, manifest.ignore_index)
        images += 1
    return score(manifest.version, [entry.name for entry in manifest.classes], matrix_KK), images
