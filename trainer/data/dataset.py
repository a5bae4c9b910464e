"""What a data set is to the rest of the trainer: classes, and samples by split, whatever the layout on disk.

One module for each layout makes one of these: folder.py, voc.py, cityscapes.py, ade20k.py, coco.py, huggingface.py.
What is wrong with a data set is said before training starts, with the file's name: a run that dies after an hour on a
bad mask helps nobody.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.taxonomy import Taxonomy


class DatasetError(ValueError):
    """A data set that cannot be trained on; the message names the file and says what to do."""


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
        """The samples of a split, in its order.

        Raises:
            DatasetError: the split is missing or empty, a name occurs twice, or images are missing (all are named).
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
    def read_pair(self, sample: Sample) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """A sample's photograph (HWC uint8 RGB) and mask (HW int64 class ids, or ignore_index). Raises ImageError."""

    @abstractmethod
    def stored(self, sample: Sample, *, mask: bool) -> bytes:
        """The bytes of the photograph, or of its mask, as stored: what a fingerprint is taken of."""


def fingerprint(
    labelled: tuple[SegmentationDataset, Iterable[Sample]], unlabelled: tuple[SegmentationDataset, Iterable[Sample]]
) -> str:
    """Sha256 over names, photographs and the masks of labelled samples: equal data, equal fingerprint."""
    digest = hashlib.sha256()
    for (dataset, samples), parts in ((labelled, (False, True)), (unlabelled, (False,))):
        for sample in sorted(samples, key=lambda sample: sample.name):
            digest.update(sample.name.encode())
            for mask in parts:
                digest.update(hashlib.sha256(dataset.stored(sample, mask=mask)).digest())
    return digest.hexdigest()


def check_disjoint(*splits: tuple[str, tuple[Sample, ...]]) -> None:
    """Raise DatasetError when an image is in two (name, samples): an evaluation on training images measures nothing."""
    seen: dict[Path, str] = {}
    for split, samples in splits:
        for sample in samples:
            if sample.image in seen:
                raise DatasetError(
                    f"{sample.name!r} is in two splits, {seen[sample.image]} and {split}; take it out of one"
                )
            seen[sample.image] = split
