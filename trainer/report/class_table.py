"""Figures per class for the report, and the most frequent confusions between classes."""

# K classes

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from trainer.evaluation.audit import Audit
from trainer.evaluation.metrics import Scores
from trainer.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class ClassRow:
    """Figures of one class; None if not measured or absent.

    Attributes:
        color: in CSS notation.
        iou, boundary_iou: on the validation images, 0..1.
        in_truth: whether a validation image shows it; if not, and it is predicted, its IoU is 0.
        labelled: share of the labelled training pixels, 0..1.
        pseudo: share of the confident pseudo-label pixels, 0..1.
        mask_ratio, purity: of its pseudo-labels, 0..1; see trainer.evaluation.audit.
    """

    name: str
    color: str
    iou: float | None
    boundary_iou: float | None
    in_truth: bool
    labelled: float
    pseudo: float | None
    mask_ratio: float | None
    purity: float | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """Pixels of one class that are predicted as another; `share` of the true class, 0..1."""

    truth: str
    prediction: str
    share: float
    pixels: int


def class_rows(
    taxonomy: Taxonomy, frequency_K: Tensor, scores: Scores | None, audit: Audit | None
) -> tuple[ClassRow, ...]:
    """Rows of the class table, in class order."""
    iou, boundary_iou = (scores.per_class, scores.boundary_per_class) if scores else ({}, {})
    in_truth = scores.in_truth if scores else {}
    pseudo = audit.classes if audit else {}
    return tuple(
        ClassRow(
            name=name,
            color="#{:02x}{:02x}{:02x}".format(*color),
            iou=iou.get(name),
            boundary_iou=boundary_iou.get(name),
            in_truth=in_truth.get(name, False),
            labelled=labelled,
            pseudo=pseudo[name].share if pseudo else None,
            mask_ratio=pseudo[name].mask_ratio if pseudo else None,
            purity=pseudo[name].purity if pseudo else None,
        )
        for name, color, labelled in zip(taxonomy.names, taxonomy.colors, frequency_K.tolist(), strict=True)
    )


def normalised(scores: Scores) -> npt.NDArray[np.float64]:
    """Confusion matrix [K,K] as shares of each true class's pixels; zeros for a class that does not occur."""
    counts_KK = np.array(scores.confusion, dtype=np.float64)
    share_KK: npt.NDArray[np.float64] = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
    return share_KK


def confusions(scores: Scores, names: Sequence[str]) -> tuple[Confusion, ...]:
    """All pairs of confused classes, most pixels first."""
    counts_KK = np.array(scores.confusion, dtype=np.int64)
    share_KK = normalised(scores)
    np.fill_diagonal(counts_KK, 0)
    places = np.argsort(counts_KK, axis=None)[::-1][: np.count_nonzero(counts_KK)]
    pairs = [divmod(int(place), len(names)) for place in places]
    return tuple(
        Confusion(names[row], names[column], float(share_KK[row, column]), int(counts_KK[row, column]))
        for row, column in pairs
    )
