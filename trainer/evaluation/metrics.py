"""Scores of an evaluation: IoU and boundary IoU per class, pixel accuracy, calibration."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.evaluation.calibration import Bin, calibration_bins, calibration_error

# K classes, M bins of confidence


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of an evaluation.

    Attributes:
        miou: mean IoU over the classes in the truth, 0..1.
        per_class: IoU by class name, 0..1; None for a class that is not in the truth.
        pixel_accuracy: share of right pixels among the labelled ones, 0..1.
        confusion: pixels by true class (row) and predicted class (column).
        boundary_iou, boundary_per_class: the same for boundary IoU; None and empty if not measured.
        ece: expected calibration error, 0..1; None if not measured.
        calibration: bins of the reliability diagram; empty if not measured.
    """

    miou: float
    per_class: dict[str, float | None]
    pixel_accuracy: float
    images: int
    confusion: tuple[tuple[int, ...], ...] = ()
    boundary_iou: float | None = None
    boundary_per_class: dict[str, float | None] = dataclasses.field(default_factory=dict)
    ece: float | None = None
    calibration: tuple[Bin, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The measured scores, for events, checkpoint and bundle."""
        names = ("miou", "per_class", "pixel_accuracy", "images", "boundary_iou", "ece")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def as_full_dict(self) -> dict[str, Any]:
        """All fields, for evaluation.json and `evaluate --json`, with null for missing figures."""
        return dataclasses.asdict(self)

    @classmethod
    def from_full_dict(cls, table: dict[str, Any]) -> "Scores":
        """The inverse of `as_full_dict`. Unknown keys are ignored; invalid tables raise KeyError or TypeError."""
        known = {each.name: table[each.name] for each in dataclasses.fields(cls)}
        known["confusion"] = tuple(tuple(row) for row in table["confusion"])
        known["calibration"] = tuple(Bin(**entry) for entry in table["calibration"])
        return cls(**known)


def scores(
    confusion_KK: Tensor,
    names: tuple[str, ...],
    images: int,
    *,
    boundary_2K: Tensor | None = None,
    calibration_3M: Tensor | None = None,
) -> Scores:
    """Compute scores from summed results of `confusion` (int64), `boundary_counts` and `calibration_sums`.

    A class that does not occur in the truth has no IoU, but pixels predicted as it lower the IoU of their true classes.
    """
    hits_K = confusion_KK.diagonal()
    truth_K, predicted_K = confusion_KK.sum(1), confusion_KK.sum(0)
    miou, per_class = _over_union(hits_K, truth_K + predicted_K - hits_K, truth_K > 0, names)
    accuracy = float(hits_K.sum() / confusion_KK.sum().clamp(min=1))
    found = Scores(miou, per_class, accuracy, images, tuple(tuple(row) for row in confusion_KK.tolist()))
    if boundary_2K is not None:
        mean, by_name = _over_union(boundary_2K[0], boundary_2K[1], truth_K > 0, names)
        found = dataclasses.replace(found, boundary_iou=mean, boundary_per_class=by_name)
    if calibration_3M is not None:
        bins = calibration_bins(calibration_3M)
        found = dataclasses.replace(found, calibration=bins, ece=calibration_error(bins))
    return found


def confusion(prediction: Tensor, truth: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Pixels by true class (row) and predicted class (column), int64 [K,K], of two integer tensors of one shape."""
    # Ignored pixels get an extra slot: selecting the others would synchronise with the device.
    slots = torch.where(truth != ignore_index, truth.long() * classes + prediction.long(), classes * classes).flatten()
    counts = torch.zeros(classes * classes + 1, dtype=torch.int64, device=slots.device)
    return counts.scatter_add_(0, slots, torch.ones_like(slots))[:-1].reshape(classes, classes)


def _over_union(
    intersection_K: Tensor, union_K: Tensor, present_K: Tensor, names: tuple[str, ...]
) -> tuple[float, dict[str, float | None]]:
    iou_K = intersection_K.double() / union_K.clamp(min=1)
    pairs = zip(names, iou_K.tolist(), present_K.tolist(), strict=True)
    per_class = {name: value if present else None for name, value, present in pairs}
    found = [value for value in per_class.values() if value is not None]
    return sum(found) / max(len(found), 1), per_class
