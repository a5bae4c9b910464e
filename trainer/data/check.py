"""Look at a data set before training on it: every image and mask that its splits name, once each.

Here are the facts; what is wrong with them is said by findings.py, and how it is shown by check_report.py.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from trainer.data.dataset import DatasetError, MissingImagesError, Sample, SegmentationDataset
from trainer.data.decode import ImageError
from trainer.data.preflight import in_threads

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
"""What a split is for, by the last part of its name."""

LEARNT: tuple[Role, ...] = ("labelled", "unlabelled", "train")
"""Roles of images that a run trains on; a train list often holds all the others."""

TAUGHT: tuple[Role, ...] = ("labelled", "train")
"""Roles of images whose masks a run learns from."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen of one image.

    Attributes:
        sample: which.
        labelled: whether it has a mask.
        size: (height, width) in pixels; None where it cannot be decoded.
        stored: sha256 of the file.
        pixels: sha256 of the decoded pixels.
        counts_K: pixels by class; None without a usable mask.
        ignored: pixels of the mask that do not count.
        problem: why image or mask are of no use; "" where they are.
    """

    sample: Sample
    labelled: bool
    size: tuple[int, int] | None = None
    stored: str = ""
    pixels: str = ""
    counts_K: npt.NDArray[np.int64] | None = None
    ignored: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Split:
    """One split: what it is for, what it names, why it cannot be read as a whole, and what to do."""

    name: str
    role: Role
    samples: tuple[Sample, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was seen of a data set; `looked` is by the image's path."""

    dataset: SegmentationDataset
    splits: tuple[Split, ...]
    looked: dict[str, Looked] = field(default_factory=dict)

    def of(self, samples: Iterable[Sample]) -> list[Looked]:
        """What was seen of these."""
        return [self.looked[str(sample.image)] for sample in samples]

    def in_role(self, *roles: Role) -> list[Looked]:
        """Images of all splits of these roles, once each."""
        images = {str(sample.image) for split in self.splits if split.role in roles for sample in split.samples}
        return [self.looked[image] for image in sorted(images)]

    def counts(self, *roles: Role) -> npt.NDArray[np.int64]:
        """Pixels by class over the masks of these roles, int64 [K]."""
        found = [looked.counts_K for looked in self.in_role(*roles) if looked.counts_K is not None]
        return np.sum(found, axis=0) if found else np.zeros(len(self.dataset.taxonomy), dtype=np.int64)


def look_at(dataset: SegmentationDataset) -> Facts:
    """Decode everything that the splits of a data set name.

    Raises:
        DatasetError: it has no splits at all.
    """
    names = dataset.splits()
    if not names:
        raise DatasetError(
            f"{dataset.root}: holds no split; add splits/labelled.txt, unlabelled.txt and val.txt, an image name a line"
        )
    splits = tuple(_split(dataset, name) for name in names)
    samples = {str(sample.image): sample for split in splits for sample in split.samples}
    looked = in_threads(lambda sample: _look(dataset, sample), list(samples.values()), "images")
    return Facts(dataset, splits, dict(zip(samples, looked, strict=True)))


def role_of(split: str) -> Role:
    """What a split is for, by its name: 1_16/unlabeled is "unlabelled"."""
    return ROLES.get(PurePosixPath(split).name, "other")


def _split(dataset: SegmentationDataset, name: str) -> Split:
    try:
        return Split(name, role_of(name), dataset.split(name))
    except MissingImagesError as error:
        return Split(name, role_of(name), error.samples, error.missing, remedy=error.remedy)
    except DatasetError as error:
        return Split(name, role_of(name), problem=str(error))


def _look(dataset: SegmentationDataset, sample: Sample) -> Looked:
    labelled = dataset.has_mask(sample)
    try:
        stored = hashlib.sha256(dataset.stored(sample, mask=False)).hexdigest()
        image_HWC = dataset.read(sample)
    except ImageError as error:
        return Looked(sample, labelled, problem=str(error))
    size = (image_HWC.shape[0], image_HWC.shape[1])
    pixels = hashlib.sha256(str(size).encode() + image_HWC.tobytes()).hexdigest()
    if not labelled:
        return Looked(sample, labelled, size, stored, pixels)
    try:
        mask_HW = dataset.read_mask(sample, size)
    except ImageError as error:
        return Looked(sample, labelled, size, stored, pixels, problem=str(error))
    counted = mask_HW[mask_HW != dataset.taxonomy.ignore_index]
    counts_K = np.bincount(counted, minlength=len(dataset.taxonomy))
    return Looked(sample, labelled, size, stored, pixels, counts_K, mask_HW.size - counted.size)
