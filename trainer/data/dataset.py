"""What a data set is to the rest of the trainer: classes, and samples by split, whatever the layout on disk.

One module for each layout makes one of these: folder.py, voc.py, cityscapes.py, ade20k.py, coco.py, huggingface.py.
What is wrong with a data set is said before training starts, with the file's name: a run that dies after an hour on a
bad mask helps nobody.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.taxonomy import Taxonomy

EVERYTHING = "*"
"""The split of all images that a data set has."""

FULLY_READ = 2000
"""Up to so many unlabelled images are read whole for a fingerprint; of more, each gives only its first bytes."""

FIRST_BYTES = 4096
"""Enough for a header and the first pixels."""


class DatasetError(ValueError):
    """A data set that cannot be trained on; the message names the file and says what to do."""


class MissingImagesError(DatasetError):
    """A split that lists images that do not exist.

    Attributes:
        missing: their names, all of them.
        samples: the ones that are there.
        remedy: what to do; given where more is known than that they are missing.
    """

    def __init__(
        self, source: Path, missing: Sequence[str], samples: "tuple[Sample, ...]", remedy: str | None = None
    ) -> None:
        self.missing, self.samples = tuple(missing), samples
        what = f"of {len(missing) + len(samples)} images {len(missing)} do not exist: {', '.join(map(repr, missing))}"
        likely = "add them or take them out of the list"
        if not samples:
            what = f"none of the {len(missing)} images exists, the first is {missing[0]!r}"
            likely = "check data.root and data.format"
        self.remedy = remedy or likely
        super().__init__(f"{source}: {what}; {self.remedy}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a data set.

    Attributes:
        name: as the split lists it.
        image: where its pixels lie; in a data set that is one file, a name for messages alone.
        mask: where its label lies, or would lie; None in a layout that has no place for it.
    """

    name: str
    image: Path
    mask: Path | None


class SegmentationDataset(ABC):
    """Classes, and samples by split.

    Attributes:
        root: the data set's folder.
        taxonomy: its classes.
    """

    root: Path
    taxonomy: Taxonomy

    @abstractmethod
    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of a split, in its order; EVERYTHING gives all images, sorted.

        Raises:
            DatasetError: the split is missing or empty, a name occurs twice, or images are missing
                (MissingImagesError: all are named).
        """

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The names of all splits that there are, sorted."""

    @abstractmethod
    def has_mask(self, sample: Sample) -> bool:
        """Whether the sample is labelled."""

    @abstractmethod
    def read(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """A sample's photograph, HWC uint8 RGB. Raises ImageError."""

    @abstractmethod
    def read_mask(self, sample: Sample, size: tuple[int, int]) -> npt.NDArray[np.int64]:
        """A sample's mask, HW int64 class ids, or ignore_index.

        Raises:
            ImageError: there is none, it is not of `size` (height, width), or holds what is no class.
        """

    def read_pair(self, sample: Sample) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """A sample's photograph (HWC uint8 RGB) and mask (HW int64 class ids, or ignore_index). Raises ImageError."""
        image_HWC = self.read(sample)
        return image_HWC, self.read_mask(sample, (image_HWC.shape[0], image_HWC.shape[1]))

    @abstractmethod
    def size(self, sample: Sample) -> tuple[int, int]:
        """(height, width) of a sample's photograph, from its header alone. Raises ImageError."""

    @abstractmethod
    def stored(self, sample: Sample, *, mask: bool, limit: int = -1) -> bytes:
        """The bytes of the photograph, or of its mask, as stored; with a limit, only so many of the first.

        Raises:
            ImageError: it cannot be read.
        """


def fingerprint(
    labelled: tuple[SegmentationDataset, Iterable[Sample]], unlabelled: tuple[SegmentationDataset, Iterable[Sample]]
) -> str:
    """Sha256 over names, photographs and the masks of labelled samples: equal data, equal fingerprint.

    Where there are more than FULLY_READ unlabelled images, only their names and first bytes go in: to read a hundred
    thousand files before every run would cost more than it tells.
    """
    digest = hashlib.sha256()
    unlabelled_samples = tuple(unlabelled[1])
    limit = -1 if len(unlabelled_samples) <= FULLY_READ else FIRST_BYTES
    roles = ((labelled[0], labelled[1], (False, True), -1), (unlabelled[0], unlabelled_samples, (False,), limit))
    for dataset, samples, parts, part_limit in roles:
        for sample in sorted(samples, key=lambda sample: sample.name):
            digest.update(sample.name.encode())
            for mask in parts:
                stored = dataset.stored(sample, mask=mask, limit=part_limit)
                digest.update(hashlib.sha256(stored).digest())
    return digest.hexdigest()


def without(samples: Iterable[Sample], *others: Iterable[Sample]) -> tuple[Sample, ...]:
    """The samples whose images are in none of the others."""
    taken = {_place(sample) for other in others for sample in other}
    return tuple(sample for sample in samples if _place(sample) not in taken)


def check_disjoint(*splits: tuple[str, tuple[Sample, ...]]) -> None:
    """Raise DatasetError when an image is in two (name, samples): an evaluation on training images measures nothing."""
    seen: dict[str, str] = {}
    for split, samples in splits:
        for sample in samples:
            place = _place(sample)
            if place in seen:
                raise DatasetError(f"{sample.name!r} is in two splits, {seen[place]} and {split}; take it out of one")
            seen[place] = split


def _place(sample: Sample) -> str:
    # The unlabelled images may come from another root, written another way. No links are followed: that would look at
    # the disk for every folder of every path.
    return os.path.abspath(sample.image)  # noqa: PTH100 (Path.absolute leaves ".." where it is)
