"""Interface of a data set; file_layouts.py and huggingface.py implement it."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from trainer.counted import counted
from trainer.data.formats.rgb import ValueRange
from trainer.data.mask_encoding import MaskEncoding
from trainer.taxonomy import Taxonomy
from trainer.user_error import UserError

EVERYTHING = "*"
"""Name of the split with all images."""

FULL_READ_LIMIT = 2000
"""Up to this many unlabelled images are read completely, of more only first bytes or headers: reading 100 000 files
before every run takes too long.
"""

FIRST_BYTES = 4096
"""Bytes per image in the fingerprint of a large data set."""


class DatasetError(UserError):
    """A data set cannot be used for training."""


MAX_NAMED = 5
"""Missing images that an error names."""


class MissingImagesError(DatasetError):
    """A split lists images that do not exist (`missing`); `samples` are the others."""

    def __init__(
        self, source: Path, missing: Sequence[str], samples: "tuple[Sample, ...]", remedy: str | None = None
    ) -> None:
        self.missing, self.samples = tuple(missing), samples
        total = len(missing) + len(samples)
        message = counted(len(missing), f"of {total} images does not exist", f"of {total} images do not exist")
        message += f": {', '.join(map(repr, missing[:MAX_NAMED]))}"
        if len(missing) > MAX_NAMED:
            message += f" and {len(missing) - MAX_NAMED} more"
        default = "add them or remove them from the list"
        if not samples:
            message = f"none of the {total} images exists, the first is {missing[0]!r}"
            default = "check data.root and data.format"
        self.remedy = remedy or default
        super().__init__(f"{source}: {message}; {self.remedy}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a data set.

    Attributes:
        name: its name in the split.
        image: path; in layouts that store many images in one file, an identifier for messages.
        mask: path, which may not exist; None if the layout has no place for one.
    """

    name: str
    image: Path
    mask: Path | None


class SegmentationDataset(ABC):
    """Classes, and samples by split."""

    root: Path
    taxonomy: Taxonomy
    encoding: MaskEncoding
    """How the masks store the classes; a layout may have masks of another kind too."""
    assumed: str = ""
    """Public data set whose classes are assumed, because the names of the images are its own; "" = the user's word."""
    value_range: ValueRange | None = None
    """The recipe's `data.range`."""
    split_folder: Path
    """Folder of the split files."""
    how_to_validate: ClassVar[str] = "list some images with masks in splits/val.txt"
    """Remedy if the layout's own split `train` has all labelled images."""

    @abstractmethod
    def split(self, name: str) -> tuple[Sample, ...]:
        """Samples of a split, in its order; of EVERYTHING, sorted.

        Raises DatasetError if the split does not exist, is empty or lists a name twice, and MissingImagesError.
        """

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of all splits, sorted."""

    @abstractmethod
    def has_mask(self, sample: Sample) -> bool:
        """Whether the sample is labelled."""

    @abstractmethod
    def read(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """Read the image of a sample, HWC uint8 RGB. Raises ImageError."""

    @abstractmethod
    def read_mask(self, sample: Sample, size: tuple[int, int]) -> npt.NDArray[np.int64]:
        """Read the mask of a sample, HW int64: class ids, or ignore_index.

        Raises ImageError if it is missing, its (height, width) is not `size`, or it stores an unknown value.
        """

    def read_pair(self, sample: Sample) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Read image and mask, as `read` and `read_mask`. Raises ImageError."""
        image_HWC = self.read(sample)
        return image_HWC, self.read_mask(sample, (image_HWC.shape[0], image_HWC.shape[1]))

    @abstractmethod
    def size(self, sample: Sample) -> tuple[int, int]:
        """(height, width) of a sample's image, read from the file header only. Raises ImageError."""

    @abstractmethod
    def read_bytes(self, sample: Sample, *, mask: bool, limit: int = -1) -> bytes:
        """Encoded bytes of the image or its mask; only the first `limit`, if not negative. Raises ImageError."""


def fingerprint(
    labelled: tuple[SegmentationDataset, Iterable[Sample]], unlabelled: tuple[SegmentationDataset, Iterable[Sample]]
) -> str:
    """SHA-256 over names, images and masks of labelled samples, names and images (see FULL_READ_LIMIT) of others."""
    digest = hashlib.sha256()
    unlabelled_samples = tuple(unlabelled[1])
    limit = -1 if len(unlabelled_samples) <= FULL_READ_LIMIT else FIRST_BYTES
    roles = ((*labelled, (False, True), -1), (unlabelled[0], unlabelled_samples, (False,), limit))
    for dataset, samples, parts, part_limit in roles:
        for sample in sorted(samples, key=lambda sample: sample.name):
            digest.update(sample.name.encode())
            for mask in parts:
                encoded = dataset.read_bytes(sample, mask=mask, limit=part_limit)
                digest.update(hashlib.sha256(encoded).digest())
    return digest.hexdigest()


def without(samples: Iterable[Sample], *others: Iterable[Sample]) -> tuple[Sample, ...]:
    """Samples whose images occur in none of the others."""
    excluded = {_path_key(sample) for other in others for sample in other}
    return tuple(sample for sample in samples if _path_key(sample) not in excluded)


def check_disjoint(*splits: tuple[str, tuple[Sample, ...]]) -> None:
    """Raise DatasetError if two of the (name, samples) share an image."""
    seen: dict[str, str] = {}
    for split, samples in splits:
        for sample in samples:
            key = _path_key(sample)
            if key in seen:
                raise DatasetError(
                    f"{sample.name!r} is in two splits, {seen[key]} and {split}; remove it from one of them"
                )
            seen[key] = split


def _path_key(sample: Sample) -> str:
    # Two roots may be one folder, spelled differently. Resolving links would access the disk.
    return os.path.abspath(sample.image)  # noqa: PTH100 (Path.absolute keeps "..")
