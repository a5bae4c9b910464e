"""Inspect a data set before training: decode every image and mask of its splits, once each.

problems.py derives errors and warnings from these facts.
"""

# H W pixels, C channels, K classes

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from trainer.data.dataset import DatasetError, MissingImagesError, Sample, SegmentationDataset
from trainer.data.decode import ImageError
from trainer.data.label_counts import LabelCounts, add_counts, count_mask
from trainer.data.scan import map_in_threads

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
        counts: pixels of the mask; None without a usable mask.
        problem: why image or mask cannot be used.
    """

    sample: Sample
    has_mask: bool
    size: tuple[int, int] | None = None
    file_sha256: str = ""
    pixel_sha256: str = ""
    counts: LabelCounts | None = None
    problem: str = ""


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
    splits = tuple(_read_split(dataset, name) for name in names)
    samples = {str(sample.image): sample for split in splits for sample in split.samples}
    records = map_in_threads(lambda sample: _inspect(dataset, sample), list(samples.values()), "images")
    return Inspection(dataset, splits, dict(zip(samples, records, strict=True)))


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
        record = ImageRecord(sample, has_mask, size, file_sha256, pixel_sha256)
        if not has_mask:
            return record
        mask_HW = dataset.read_mask(sample, size)
    except ImageError as error:
        return replace(record, problem=str(error))
    return replace(record, counts=count_mask(mask_HW, dataset.taxonomy))
