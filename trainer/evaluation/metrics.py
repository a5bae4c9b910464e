"""What an evaluation finds: intersection over union class by class, outlines, and calibration."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.evaluation.calibration import Bin, calibration_bins, calibration_error

# K classes, M bins of confidence


@dataclass(frozen=True, slots=True)
class Scores:
    """What an evaluation found.

    Attributes:
        miou: mean over the classes that occur in the truth, 0..1.
        per_class: intersection over union by class name; None for a class that no pixel of the truth has.
        pixel_accuracy: right pixels among the labelled ones, 0..1.
        images: how many images were counted.
        confusion: pixels by true class (row) and predicted class (column).
        boundary_iou: mean over the classes that occur in the truth, 0..1; None when it was not measured.
        boundary_per_class: by class name, as per_class; empty when it was not measured.
        ece: expected calibration error, 0..1; None when it was not measured.
        calibration: the bins of the reliability diagram; empty when it was not measured.
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
        """As events, checkpoint and bundle carry it: what was not measured is left out."""
        table = {
            "miou": self.miou,
            "per_class": self.per_class,
            "pixel_accuracy": self.pixel_accuracy,
            "images": self.images,
            "boundary_iou": self.boundary_iou,
            "ece": self.ece,
        }
        return {name: value for name, value in table.items() if value is not None}

    def as_full_dict(self) -> dict[str, Any]:
        """Everything, as evaluation.json and `evaluate --json` hold it: strict JSON, absent figures are null."""
        return dataclasses.asdict(self)

    @classmethod
    def from_full_dict(cls, table: dict[str, Any]) -> "Scores":
        """The inverse of `as_full_dict`; other keys are passed over. Raises KeyError or TypeError for anything else."""
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
    """Scores of counts that were added up over a data set.

    A class that is absent from the truth has no score and does not pull the mean down; its false alarms still count
    against the classes they were taken from.

    Args:
        confusion_KK: int64, rows the truth and columns the prediction.
        names: the classes'.
        images: how many were counted.
        boundary_2K: as trainer.evaluation.boundary counts it.
        calibration_3M: as trainer.evaluation.calibration counts it.
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
    """Confusion matrix int64 [K,K] of two integer tensors of one shape, but for pixels without truth."""
    # Pixels without truth go to a slot of their own: picking the others out would wait for the device.
    slots = torch.where(truth != ignore_index, truth.long() * classes + prediction.long(), classes * classes).flatten()
    counts = torch.zeros(classes * classes + 1, dtype=torch.int64, device=slots.device)
    return counts.scatter_add_(0, slots, torch.ones_like(slots))[:-1].reshape(classes, classes)


def _over_union(
    intersection_K: Tensor, union_K: Tensor, present_K: Tensor, names: tuple[str, ...]
) -> tuple[float, dict[str, float | None]]:
    """Mean over the classes that are present, and the value of each by name."""
    iou_K = intersection_K.double() / union_K.clamp(min=1)
    pairs = zip(names, iou_K.tolist(), present_K.tolist(), strict=True)
    per_class = {name: value if there else None for name, value, there in pairs}
    found = [value for value in per_class.values() if value is not None]
    return sum(found) / max(len(found), 1), per_class
