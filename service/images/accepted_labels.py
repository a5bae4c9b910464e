"""Predictions of models that a person accepts as labels.

Such a label trains and never validates: in `val` it would make the model that predicted it, and all that are trained
from that one, look better than they are.
"""

# H W pixels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.classes.class_list import MASK_VALUES, ClassList, Ids
from service.errors import LabelExists, LabelNotDrawn, MaskInvalid
from service.segmentation.inference.predictor import Prediction
from service.storage.tables import Image, Split

HIGHEST = 255


@dataclass(frozen=True, slots=True)
class PredictedLabel:
    """A prediction as a label."""

    ids_HW: Ids
    """Ids of a class list."""
    below_confidence: int
    """Pixels that are ignored, since the model is less confident than asked for."""
    without_class: int
    """Pixels that are ignored, since the list has no such class."""


def label_of(
    prediction: Prediction, listed: Sequence[int | None], classes: ClassList, min_confidence: float = 0.0
) -> PredictedLabel:
    """Turn a prediction into a label; pixels less confident than `min_confidence`, 0..1, are ignored.

    `listed` has the ids in the list of the model's classes, by their ids in its masks; None: it has no such class.
    Raises MaskInvalid if no pixel has a label.
    """
    table = np.full(MASK_VALUES, classes.ignore_index, np.uint16)
    known = np.zeros(MASK_VALUES, np.bool_)
    for own, position in enumerate(listed):
        if position is not None:
            table[own], known[own] = position, True
    ids_HW, known_HW = table[prediction.mask_HW], known[prediction.mask_HW]
    # 0.2 * 255 is a little above 51.
    sure_HW = prediction.confidence_HW >= min_confidence * HIGHEST - 1e-6
    ids_HW[~sure_HW] = classes.ignore_index
    label = PredictedLabel(
        ids_HW if int(ids_HW.max()) > HIGHEST else ids_HW.astype(np.uint8),
        below_confidence=int(np.count_nonzero(~sure_HW)),
        without_class=int(np.count_nonzero(sure_HW & ~known_HW)),
    )
    if not (sure_HW & known_HW).any():
        raise MaskInvalid(
            f"No pixel of the prediction can be a label: {label.below_confidence} are less confident than "
            f"min_confidence={min_confidence:g}, and {label.without_class} have classes that the class list lacks. "
            "Lower min_confidence, or draw the label."
        )
    return label


def check_acceptable(image: Image, split: Split | None, *, replace: bool) -> None:
    """Raise LabelExists or LabelNotDrawn unless a prediction may become the label of an image, in this split.

    `split` None: it has none yet, and neither have its near-duplicates.
    """
    if image.mask_sha256 is not None and image.accepted_from is None and not replace:
        raise LabelExists(
            f"Image {image.id} has a label that a person drew, which the prediction would replace: leave it, or send "
            "?replace=true."
        )
    if split == "val":
        raise LabelNotDrawn(
            "The label would go to `val`, which judges models: a model, and those trained from it, would be compared "
            "with its own prediction. Send a drawn label (PUT .../mask), or ?split=labelled."
        )
