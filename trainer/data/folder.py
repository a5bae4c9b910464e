"""The folder data set: DATASET/{classes.toml, images/, masks/, splits/}.

A split is a text file with one name a line (without extension).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.data.dataset import DatasetError, Sample, SegmentationDataset
from trainer.data.decode import read_image, read_mask
from trainer.taxonomy import Taxonomy

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class FolderDataset(SegmentationDataset):
    """A data set on disk: its classes, and samples by split."""

    root: Path
    taxonomy: Taxonomy
    lists: Path
    """The folder of the split files."""

    def split(self, name: str) -> tuple[Sample, ...]:
        """See SegmentationDataset."""
        path = self.lists / f"{name}.txt"
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{path}: cannot be read ({error}); it lists one image name a line, in UTF-8") from error
        if not names:
            raise DatasetError(f"{path}: is empty; list one image name a line")
        if twice := _first_repeated(names):
            raise DatasetError(f"{path}: {twice!r} is listed twice")
        return tuple(Sample(name, self._image(name, path), self.root / "masks" / f"{name}.png") for name in names)

    def splits(self) -> tuple[str, ...]:
        """See SegmentationDataset."""
        return tuple(sorted(str(path.relative_to(self.lists).with_suffix("")) for path in self.lists.rglob("*.txt")))

    def has_mask(self, sample: Sample) -> bool:
        """See SegmentationDataset."""
        return sample.mask is not None and sample.mask.exists()

    def stored(self, sample: Sample, *, mask: bool) -> bytes:
        """See SegmentationDataset."""
        path = sample.mask if mask else sample.image
        assert path is not None  # noqa: S101
        return path.read_bytes()

    def read(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """See SegmentationDataset."""
        return read_image(sample.image)

    def read_pair(self, sample: Sample) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """See SegmentationDataset."""
        image_HWC = read_image(sample.image)
        size = (image_HWC.shape[0], image_HWC.shape[1])
        assert sample.mask is not None  # noqa: S101
        return image_HWC, read_mask(sample.mask, size, len(self.taxonomy), self.taxonomy.ignore_index)

    def _image(self, name: str, split: Path) -> Path:
        for suffix in (*SUFFIXES, *map(str.upper, SUFFIXES)):
            path = self.root / "images" / f"{name}{suffix}"
            if path.exists():
                return path
        raise DatasetError(
            f"{split}: lists {name!r}, but {self.root / 'images' / name} exists with none of {', '.join(SUFFIXES)}"
        )


def check_images(dataset: SegmentationDataset, labelled: Iterable[Sample], unlabelled: Iterable[Sample]) -> None:
    """Decode every photograph, and the masks of labelled ones, once. Raises ImageError at the first that is no use."""
    for sample in labelled:
        dataset.read_pair(sample)
    for sample in unlabelled:
        dataset.read(sample)


def _first_repeated(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
