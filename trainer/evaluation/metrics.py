"""Mean intersection over union, class by class."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Scores:
    """What an evaluation found.

    Attributes:
        miou: mean over the classes that occur in the truth, 0..1.
        per_class: intersection over union by class name; None for a class that no pixel of the truth has.
        pixel_accuracy: right pixels among the labelled ones, 0..1.
        images: how many images were counted.
    """

    miou: float
    per_class: dict[str, float | None]
    pixel_accuracy: float
    images: int

    def as_dict(self) -> dict[str, Any]:
        """As events, checkpoint and bundle carry it."""
        return {
            "miou": self.miou,
            "per_class": self.per_class,
            "pixel_accuracy": self.pixel_accuracy,
            "images": self.images,
        }


def scores(confusion_KK: Tensor, names: tuple[str, ...], images: int) -> Scores:
    """Scores of a confusion matrix, int64 [K,K], rows the truth and columns the prediction.

    A class that is absent from the truth has no score and does not pull the mean down; its false alarms still count
    against the classes they were taken from.
    """
    hits_K = confusion_KK.diagonal().double()
    truth_K, predicted_K = confusion_KK.sum(1), confusion_KK.sum(0)
    iou_K = hits_K / (truth_K + predicted_K - hits_K).clamp(min=1)
    present = (truth_K > 0).tolist()
    per_class = {
        name: value if there else None for name, value, there in zip(names, iou_K.tolist(), present, strict=True)
    }
    found = [value for value in per_class.values() if value is not None]
    accuracy = float(hits_K.sum() / confusion_KK.sum().clamp(min=1))
    return Scores(sum(found) / max(len(found), 1), per_class, accuracy, images)


def confusion(prediction: Tensor, truth: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Confusion matrix int64 [K,K] of two integer tensors of one shape, but for pixels without truth."""
    counted = truth != ignore_index
    pairs = truth[counted].long() * classes + prediction[counted].long()
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
