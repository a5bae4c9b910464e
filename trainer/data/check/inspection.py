"""Inspect a data set before training: decode every image and mask of its splits, once each.

problems.py derives errors and warnings from these facts.
"""

# H W pixels, C channels, K classes

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from trainer.data.dataset import DatasetError, MissingImagesError, Sample, SegmentationDataset
from trainer.data.decode import ImageError, UndeclaredRangeError
from trainer.data.formats.rgb import ValueRange
from trainer.data.label_counts import LabelCounts, add_counts, count_mask
from trainer.data.map_in_threads import map_in_threads

Role = Literal["labelled", "unlabelled", "train", "val", "other"]

ROLES: dict[str, Role] = {
    "labelled": "labelled",
    "labeled": "labelled",
    "train": "train",
    "unlabelled": "unlabelled",
    "unlabeled": "unlabelled",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "val",
}
"""Role of a split, by the last part of its name."""

TRAINING_ROLES: tuple[Role, ...] = ("labelled", "unlabelled", "train")
"""Roles whose images are used in training."""

LABELLED_ROLES: tuple[Role, ...] = ("labelled", "train")
"""Roles whose masks are used in training."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """Facts about one image.

    Attributes:
        size: (height, width) in pixels; None if the image cannot be decoded.
        pixel_sha256: over size and decoded pixels; "" if the image cannot be decoded.
        brightest: largest value of the decoded pixels, 0..255.
        counts: pixels of the mask; None without a usable mask.
        problem: why image or mask cannot be used.
        undeclared: usual values of an image that needs `data.range`, if it is not declared.
    """

    sample: Sample
    has_mask: bool
    size: tuple[int, int] | None = None
    file_sha256: str = ""
    pixel_sha256: str = ""
    brightest: int = 0
    counts: LabelCounts | None = None
    problem: str = ""
    undeclared: ValueRange | None = None


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """Facts about one split: role, existing and missing images, and why it cannot be read, with the remedy."""

    name: str
    role: Role
    samples: tuple[Sample, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """All facts about a data set; `records` are keyed by image path."""

    dataset: SegmentationDataset
    splits: tuple[SplitRecord, ...]
    records: dict[str, ImageRecord] = field(default_factory=dict)
    proposed_range: ValueRange | None = None

    def records_of(self, samples: Iterable[Sample]) -> list[ImageRecord]:
        """Records of the samples."""
        return [self.records[str(sample.image)] for sample in samples]

    def with_role(self, *roles: Role) -> list[ImageRecord]:
        """Records of the images in splits of the given roles, once each."""
        images = {str(sample.image) for split in self.splits if split.role in roles for sample in split.samples}
        return [self.records[image] for image in sorted(images)]

    def class_counts(self, *roles: Role) -> npt.NDArray[np.int64]:
        """Pixels per class over the masks of the given roles, int64 [K]."""
        return self.label_counts(self.with_role(*roles)).classes_K

    def label_counts(self, records: Iterable[ImageRecord]) -> LabelCounts:
        """Pixels over the usable masks."""
        return add_counts((record.counts for record in records if record.counts), self.dataset.taxonomy)


def inspect_dataset(dataset: SegmentationDataset) -> Inspection:
    """Decode every image and mask of all splits. Raises DatasetError if there are none."""
    names = dataset.splits()
    if not names:
        raise DatasetError(
            f"{dataset.root}: has no splits; add splits/labelled.txt, unlabelled.txt and val.txt with one image name "
            "per line"
        )
    return inspect_splits(dataset, tuple(_read_split(dataset, name) for name in names))


def inspect_splits(dataset: SegmentationDataset, splits: tuple[SplitRecord, ...]) -> Inspection:
    """Decode every image and mask of the given splits."""
    samples = {str(sample.image): sample for split in splits for sample in split.samples}
    records = map_in_threads(lambda sample: _inspect(dataset, sample), list(samples.values()), "images")
    proposed = _propose_range([record.undeclared for record in records if record.undeclared])
    if proposed:
        # Nothing else is known about these images yet.
        dataset.value_range = proposed
        records = map_in_threads(lambda record: _inspect_again(dataset, record), records, "images")
    return Inspection(dataset, splits, dict(zip(samples, records, strict=True)), proposed)


def _propose_range(usual_values: Sequence[ValueRange]) -> ValueRange | None:
    """The range that contains those of all images, rounded outwards to three digits; None without any."""
    if not usual_values:
        return None
    low, high = min(low for low, _ in usual_values), max(high for _, high in usual_values)
    if low == high:
        return low, low + max(1.0, abs(low) / 1000)
    digits = 2 - math.floor(math.log10(high - low))
    unit = 10.0**-digits
    below, above = math.floor(round(low / unit, 6)), math.ceil(round(high / unit, 6))
    return round(below * unit, digits), round(above * unit, digits)


def _inspect_again(dataset: SegmentationDataset, record: ImageRecord) -> ImageRecord:
    return replace(_inspect(dataset, record.sample), undeclared=record.undeclared) if record.undeclared else record


def _read_split(dataset: SegmentationDataset, name: str) -> SplitRecord:
    role = ROLES.get(PurePosixPath(name).name, "other")
    try:
        return SplitRecord(name, role, dataset.split(name))
    except MissingImagesError as error:
        return SplitRecord(name, role, error.samples, error.missing, remedy=error.remedy)
    except DatasetError as error:
        return SplitRecord(name, role, problem=str(error))


def _inspect(dataset: SegmentationDataset, sample: Sample) -> ImageRecord:
    has_mask = dataset.has_mask(sample)
    record = ImageRecord(sample, has_mask)
    try:
        file_sha256 = hashlib.sha256(dataset.read_bytes(sample, mask=False)).hexdigest()
        image_HWC = dataset.read(sample)
        size = (image_HWC.shape[0], image_HWC.shape[1])
        pixel_sha256 = hashlib.sha256(str(size).encode() + image_HWC.tobytes()).hexdigest()
        record = ImageRecord(sample, has_mask, size, file_sha256, pixel_sha256, int(image_HWC.max()))
        if not has_mask:
            return record
        mask_HW = dataset.read_mask(sample, size)
    except UndeclaredRangeError as error:
        return replace(record, undeclared=(error.low, error.high))
    except ImageError as error:
        return replace(record, problem=str(error))
    return replace(record, counts=count_mask(mask_HW, dataset.taxonomy))
