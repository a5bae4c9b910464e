"""The folder data set: DATASET/{classes.toml, images/, masks/, splits/}.

A split is a text file with one name a line (without extension). What is wrong with a data set is said before training
starts, with the file's name: a run that dies after an hour on a bad mask helps nobody.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.data.decode import read_image, read_mask
from trainer.taxonomy import Taxonomy, read_taxonomy

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class DatasetError(ValueError):
    """A data set that cannot be trained on; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of the data set: where its pixels and, if it is labelled, its mask lie."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True, slots=True)
class FolderDataset:
    """A data set on disk: its classes, and samples by split."""

    root: Path
    taxonomy: Taxonomy

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of splits/NAME.txt, in the file's order.

        Raises:
            DatasetError: the split is missing or empty, a name occurs twice, or an image is missing.
        """
        path = self.root / "splits" / f"{name}.txt"
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{path}: cannot be read ({error}); it lists one image name a line, in UTF-8") from error
        if not names:
            raise DatasetError(f"{path}: is empty; list one image name a line")
        if twice := _first_repeated(names):
            raise DatasetError(f"{path}: {twice!r} is listed twice")
        return tuple(Sample(name, self._image(name, path), self.root / "masks" / f"{name}.png") for name in names)

    def read(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """A sample's photograph, HWC uint8 RGB."""
        return read_image(sample.image)

    def read_pair(self, sample: Sample) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """A sample's photograph (HWC uint8 RGB) and mask (HW int64). Raises ImageError."""
        image_HWC = read_image(sample.image)
        size = (image_HWC.shape[0], image_HWC.shape[1])
        return image_HWC, read_mask(sample.mask, size, len(self.taxonomy), self.taxonomy.ignore_index)

    def _image(self, name: str, split: Path) -> Path:
        for suffix in (*SUFFIXES, *map(str.upper, SUFFIXES)):
            path = self.root / "images" / f"{name}{suffix}"
            if path.exists():
                return path
        raise DatasetError(
            f"{split}: lists {name!r}, but {self.root / 'images' / name} exists with none of {', '.join(SUFFIXES)}"
        )


def open_dataset(root: Path) -> FolderDataset:
    """Open the data set at `root`. Raises DatasetError or TaxonomyError."""
    if not root.is_dir():
        raise DatasetError(f"{root}: there is no such folder; set data.root to a data set")
    return FolderDataset(root, read_taxonomy(root))


def check_disjoint(*splits: tuple[str, tuple[Sample, ...]]) -> None:
    """Raise DatasetError when an image is in two (name, samples): an evaluation on training images measures nothing."""
    seen: dict[str, str] = {}
    for split, samples in splits:
        for sample in samples:
            if sample.name in seen:
                raise DatasetError(
                    f"{sample.name!r} is in two splits, {seen[sample.name]} and {split}; take it out of one"
                )
            seen[sample.name] = split


def check_images(dataset: FolderDataset, labelled: Iterable[Sample], unlabelled: Iterable[Sample]) -> None:
    """Decode every photograph, and the masks of labelled ones, once. Raises ImageError at the first that is no use."""
    for sample in labelled:
        dataset.read_pair(sample)
    for sample in unlabelled:
        dataset.read(sample)


def fingerprint(labelled: Iterable[Sample], unlabelled: Iterable[Sample]) -> str:
    """Sha256 over names, photographs and the masks of labelled samples: equal data, equal fingerprint."""
    digest = hashlib.sha256()
    for samples, parts in ((labelled, ("image", "mask")), (unlabelled, ("image",))):
        for sample in sorted(samples, key=lambda sample: sample.name):
            digest.update(sample.name.encode())
            for part in parts:
                digest.update(hashlib.sha256(getattr(sample, part).read_bytes()).digest())
    return digest.hexdigest()


def _first_repeated(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
