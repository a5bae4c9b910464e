"""Check that the labels of a split can be used: they show a class, and for training more than one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainer.data.dataset import DatasetError, Sample, SegmentationDataset
from trainer.data.label_counts import LabelCounts, add_counts, count_mask
from trainer.data.scan import map_in_threads

ENOUGH_MASKS, LEAST_SHARE = 100, 0.25
"""In this number of masks, this share of a public data set's classes must occur."""


@dataclass(frozen=True, slots=True)
class LabelFault:
    """Why the labels of a split cannot be used, or should not, and the remedy."""

    message: str
    remedy: str
    severity: Literal["error", "warning"] = "error"


def check_labels(dataset: SegmentationDataset, split: str, samples: Sequence[Sample], *, training: bool) -> None:
    """Decode every image and mask of a split.

    Raises ImageError for the first bad file, and DatasetError for an error that `find_fault` finds.
    """

    # Keeping the masks would hold the decoded data set in memory.
    def count(sample: Sample) -> LabelCounts:
        return count_mask(dataset.read_pair(sample)[1], dataset.taxonomy)

    counts = add_counts(map_in_threads(count, samples, f"images of {split}"), dataset.taxonomy)
    fault = find_fault(dataset, split, counts, training=training)
    if fault and fault.severity == "error":
        raise DatasetError(f"{dataset.root}: {fault.message}; {fault.remedy}")


def find_fault(dataset: SegmentationDataset, split: str, counts: LabelCounts, *, training: bool) -> LabelFault | None:
    """The fault of a split's labels; `training`: the masks are learnt from, not only compared with."""
    present = np.flatnonzero(counts.classes_K)
    if not counts.masks:
        return None
    if not len(present):
        message = f"{split}: every pixel of the masks is ignored, so that they label nothing"
        return LabelFault(message, f"label the images; or {_question(dataset, None)}")
    if dataset.assumed and counts.masks >= ENOUGH_MASKS and len(present) < LEAST_SHARE * len(dataset.taxonomy):
        classes = f"{len(present)} of the {len(dataset.taxonomy)} classes of {dataset.assumed}"
        remedy = "write their classes into classes.toml, or confirm these with data.format (--format)"
        return LabelFault(f"{split}: {counts.masks} masks show {classes}", remedy)
    if len(present) > 1:
        return None
    return _one_class_fault(
        dataset, split, dataset.taxonomy.names[present[0]], ignored=counts.ignored > 0, training=training
    )


def _one_class_fault(
    dataset: SegmentationDataset, split: str, name: str, *, ignored: bool, training: bool
) -> LabelFault | None:
    message = f"{split}: the masks show one class only, {name!r}"
    if ignored and not training:
        return LabelFault(f"{message}, and ignored pixels", _question(dataset, name), "warning")
    if not training:
        return None
    message += ", and one class alone cannot be learnt"
    if ignored:
        return LabelFault(f"{message}; the other pixels are ignored", _question(dataset, name))
    return LabelFault(message, "label the other classes too; what surrounds an object is a class, such as background")


def _question(dataset: SegmentationDataset, present: str | None) -> str:
    encoding, names = dataset.encoding, dataset.taxonomy.names
    ignored = encoding.stored_as(dataset.taxonomy.ignore_index)
    if encoding.colors:
        return f"is {ignored} a class? Then list it in the colors of the class, not in ignore_colors"
    others = [name for name in names if name != present]
    other = repr(others[0]) if len(others) == 1 else "the other class"
    first = f"values = [{encoding.stored_as(names.index(present))}] for {present!r} and " if present else ""
    return (
        f"is {ignored} a class? Then list the values of all classes in classes.toml, {first}values = [{ignored}] for "
        f"{other}; pixels to ignore need a value that is none of them (ignore_values)"
    )
