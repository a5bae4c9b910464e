"""Class by class: the report's table, and which classes are taken for which."""

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
    """What is known of one class; None where it was not measured, or the class does not occur.

    Attributes:
        name, color: of the class; the colour as CSS writes it.
        iou, boundary_iou: on the validation images, 0..1.
        labelled: its share of the labelled training pixels, 0..1.
        pseudo: its share of the confident pseudo-label pixels, 0..1.
        mask_ratio, purity: of its pseudo-labels, 0..1.
    """

    name: str
    color: str
    iou: float | None
    boundary_iou: float | None
    labelled: float
    pseudo: float | None
    mask_ratio: float | None
    purity: float | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """One class that is taken for another.

    Attributes:
        truth, prediction: the classes' names.
        part: of the true class's pixels, 0..1.
        pixels: how many.
    """

    truth: str
    prediction: str
    part: float
    pixels: int


def class_rows(
    taxonomy: Taxonomy, frequency_K: Tensor, scores: Scores | None, audit: Audit | None
) -> tuple[ClassRow, ...]:
    """The table's rows, in the order of the classes."""
    rows = []
    for name, color, labelled in zip(taxonomy.names, taxonomy.colors, frequency_K.tolist(), strict=True):
        pseudo = audit.classes[name] if audit else None
        rows.append(
            ClassRow(
                name=name,
                color="#{:02x}{:02x}{:02x}".format(*color),
                iou=scores.per_class.get(name) if scores else None,
                boundary_iou=scores.boundary_per_class.get(name) if scores else None,
                labelled=labelled,
                pseudo=pseudo.share if pseudo else None,
                mask_ratio=pseudo.mask_ratio if pseudo else None,
                purity=pseudo.purity if pseudo else None,
            )
        )
    return tuple(rows)


def normalised(scores: Scores) -> npt.NDArray[np.float64]:
    """The confusion matrix [K,K] as parts of each true class's pixels; zeros for a class that does not occur."""
    counts_KK = np.array(scores.confusion, dtype=np.float64)
    parts_KK: npt.NDArray[np.float64] = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
    return parts_KK


def confusions(scores: Scores, names: Sequence[str]) -> tuple[Confusion, ...]:
    """All pairs of classes that cost pixels, the most expensive first."""
    counts_KK = np.array(scores.confusion, dtype=np.int64)
    parts_KK = normalised(scores)
    np.fill_diagonal(counts_KK, 0)
    places = np.argsort(counts_KK, axis=None)[::-1][: np.count_nonzero(counts_KK)]
    pairs = [divmod(int(place), len(names)) for place in places]
    return tuple(
        Confusion(names[row], names[column], float(parts_KK[row, column]), int(counts_KK[row, column]))
        for row, column in pairs
    )
