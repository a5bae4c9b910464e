"""Check that the labels of a split can be used: they show a class, and for training more than one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from trainer.counted import counted
from trainer.data.dataset import EVERYTHING, DatasetError, Sample, SegmentationDataset
from trainer.data.label_counts import LabelCounts, add_counts, count_mask
from trainer.data.map_in_threads import map_in_threads

ENOUGH_MASKS, LEAST_SHARE = 100, 0.25
"""In this number of masks, this share of a public data set's classes must occur; in fewer masks, it should."""


@dataclass(frozen=True, slots=True)
class LabelFault:
    """Why the labels of a split cannot be used, or should not, and the remedy."""

    message: str
    remedy: str
    severity: Literal["error", "warning"] = "error"


def check_labels(dataset: SegmentationDataset, split: str, samples: Sequence[Sample], *, training: bool) -> None:
    """Decode every image and mask of a split.

    Raises ImageError for the first bad file, and DatasetError for an error that `find_fault` finds, and for two images
    of EVERYTHING with one mask.
    """
    if split == EVERYTHING:
        _check_masks_not_shared(dataset, samples)

    # Keeping the masks would hold the decoded data set in memory.
    def count(sample: Sample) -> LabelCounts:
        return count_mask(dataset.read_pair(sample)[1], dataset.taxonomy)

    counts = add_counts(map_in_threads(count, samples, f"images of {split}"), dataset.taxonomy)
    fault = find_fault(dataset, split, counts, training=training)
    if fault and fault.severity == "error":
        raise DatasetError(f"{dataset.root}: {fault.message}; {fault.remedy}")


def _check_masks_not_shared(dataset: SegmentationDataset, samples: Sequence[Sample]) -> None:
    images: dict[Path, Path] = {}
    for sample in samples:
        if sample.mask and (other := images.setdefault(sample.mask, sample.image)) != sample.image:
            raise DatasetError(
                f"{dataset.root}: {other} and {sample.image} would share the mask {sample.mask}; rename one of them, "
                "and its mask"
            )


def find_fault(dataset: SegmentationDataset, split: str, counts: LabelCounts, *, training: bool) -> LabelFault | None:
    """The fault of a split's labels; `training`: the masks are learnt from, not only compared with."""
    present = np.flatnonzero(counts.classes_K)
    if not counts.masks:
        return None
    if not len(present):
        message = f"{split}: every pixel of the masks is ignored, so that they label nothing"
        return LabelFault(message, f"label the images; or {_question(dataset, None)}")
    assumption = _assumption_fault(dataset, split, counts.masks, len(present))
    if len(present) > 1 or (assumption and assumption.severity == "error"):
        return assumption
    return _one_class_fault(
        dataset, split, dataset.taxonomy.names[present[0]], ignored=counts.ignored > 0, training=training
    )


def _assumption_fault(dataset: SegmentationDataset, split: str, masks: int, present: int) -> LabelFault | None:
    classes = len(dataset.taxonomy)
    if not dataset.assumed or present >= LEAST_SHARE * classes:
        return None
    shows = counted(masks, "mask shows", "masks show")
    return LabelFault(
        f"{split}: {shows} {present} of the {classes} classes of {dataset.assumed}",
        "write their classes into classes.toml, or confirm these with data.format (--format)",
        "error" if masks >= ENOUGH_MASKS else "warning",
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
    if encoding.reduces_zero:
        return "is 0 a class? Then use a classes.toml without reduce_zero, which ignores 0 and makes k the class k - 1"
    if encoding.colors:
        return f"is {ignored} a class? Then list it in the colors of the class, not in ignore_colors"
    others = [name for name in names if name != present]
    other = repr(others[0]) if len(others) == 1 else "the other class"
    first = f"values = [{encoding.stored_as(names.index(present))}] for {present!r} and " if present else ""
    return (
        f"is {ignored} a class? Then list the values of all classes in classes.toml, {first}values = [{ignored}] for "
        f"{other}; pixels to ignore need a value that is none of them (ignore_values)"
    )
