"""Scores of an evaluation: IoU and boundary IoU per class, pixel accuracy, calibration."""

import dataclasses
from collections.abc import Iterable
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
        miou: mean IoU over the classes in truth or prediction, 0..1.
        miou_truth_classes: mean IoU over the classes in the truth, 0..1, whatever is predicted.
        per_class: IoU by class name, 0..1; None for a class in neither truth nor prediction.
        pixel_accuracy: share of right pixels among the labelled ones, 0..1.
        confusion: pixels by true class (row) and predicted class (column).
        boundary_iou, boundary_per_class: the same for boundary IoU; None and empty if not measured.
        ece: expected calibration error, 0..1; None if not measured.
        calibration: bins of the reliability diagram; empty if not measured.
        miou_interval: 95 % interval of miou_truth_classes; None if not measured, or with fewer than two images.
        confident: labelled pixels whose confidence reaches the threshold of the training; None if not measured.
        reliability: share of right ones among them, 0..1; None if there are none.
    """

    miou: float
    miou_truth_classes: float
    per_class: dict[str, float | None]
    pixel_accuracy: float
    images: int
    confusion: tuple[tuple[int, ...], ...] = ()
    boundary_iou: float | None = None
    boundary_per_class: dict[str, float | None] = dataclasses.field(default_factory=dict)
    ece: float | None = None
    calibration: tuple[Bin, ...] = ()
    miou_interval: tuple[float, float] | None = None
    confident: int | None = None
    reliability: float | None = None

    @property
    def miou_over(self) -> str:
        """The classes in `miou`, to be printed with it: "3 of 11 classes"."""
        return self._of_all(sum(iou is not None for iou in self.per_class.values()))

    @property
    def miou_truth_classes_over(self) -> str:
        """The classes in `miou_truth_classes`, to be printed with it."""
        return self._of_all(sum(self.in_truth.values()))

    @property
    def in_truth(self) -> dict[str, bool]:
        """By class name: whether the truth contains the class."""
        return {name: any(row) for name, row in zip(self.per_class, self.confusion, strict=True)}

    def as_dict(self) -> dict[str, Any]:
        """The measured scores, for events, checkpoint and bundle."""
        names = ("miou_truth_classes", "per_class", "pixel_accuracy", "images", "boundary_iou", "ece")
        measured = {name: value for name in names if (value := getattr(self, name)) is not None}
        return self.as_brief_dict() | measured

    def as_brief_dict(self) -> dict[str, Any]:
        """The mIoU and its number of classes."""
        return {"miou": self.miou, "miou_over": self.miou_over}

    def as_full_dict(self) -> dict[str, Any]:
        """All fields, for evaluation.json and `evaluate --json`, with null for missing figures."""
        return self.as_brief_dict() | dataclasses.asdict(self)

    @classmethod
    def from_full_dict(cls, table: dict[str, Any]) -> "Scores":
        """The inverse of `as_full_dict`. Unknown keys are ignored; invalid tables raise KeyError or TypeError."""
        known = {each.name: table[each.name] for each in dataclasses.fields(cls)}
        known["confusion"] = tuple(tuple(row) for row in table["confusion"])
        known["miou_interval"] = table["miou_interval"] and tuple(table["miou_interval"])
        known["calibration"] = tuple(Bin(**entry) for entry in table["calibration"])
        return cls(**known)

    def _of_all(self, counted: int) -> str:
        return f"{counted} of {len(self.per_class)} classes"


def scores(
    confusion_KK: Tensor,
    names: tuple[str, ...],
    images: int,
    *,
    boundary_2K: Tensor | None = None,
    calibration_3M: Tensor | None = None,
) -> Scores:
    """Compute scores from summed results of `confusion` (int64), `boundary_counts` and `calibration_sums`.

    Every class whose union is not empty counts, so a class that is only predicted has IoU 0, as in mmsegmentation,
    torchmetrics and scikit-learn. Deviation: the authors also count a class in neither truth nor prediction as 0.
    """
    hits_K = confusion_KK.diagonal()
    truth_K, predicted_K = confusion_KK.sum(1), confusion_KK.sum(0)
    per_class = _over_union(hits_K, truth_K + predicted_K - hits_K, names)
    in_truth = [per_class[name] for name, pixels in zip(names, truth_K.tolist(), strict=True) if pixels]
    found = Scores(
        miou=_mean(per_class.values()),
        miou_truth_classes=_mean(in_truth),
        per_class=per_class,
        pixel_accuracy=float(hits_K.sum() / confusion_KK.sum().clamp(min=1)),
        images=images,
        confusion=tuple(tuple(row) for row in confusion_KK.tolist()),
    )
    if boundary_2K is not None:
        by_name = _over_union(boundary_2K[0], boundary_2K[1], names)
        found = dataclasses.replace(found, boundary_iou=_mean(by_name.values()), boundary_per_class=by_name)
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


def _over_union(intersection_K: Tensor, union_K: Tensor, names: tuple[str, ...]) -> dict[str, float | None]:
    iou_K = intersection_K.double() / union_K.clamp(min=1)
    pairs = zip(names, iou_K.tolist(), union_K.tolist(), strict=True)
    return {name: value if union else None for name, value, union in pairs}


def _mean(values: Iterable[float | None]) -> float:
    found = [value for value in values if value is not None]
    return sum(found) / max(len(found), 1)
