"""Pascal VOC 2012: JPEGImages, SegmentationClass (or SegmentationClassAug) and ImageSets/Segmentation.

The lists in ImageSets (train, val, trainval) are splits. SegmentationClassAug contains the 10582 masks of the extended
training set (Hariharan et al., ICCV 2011), which the UniMatch lists call SegmentationClass.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.data.files import FileDataset, files_below, mirrored_masks
from trainer.data.split_files import read_split_file, split_names


class VocDataset(FileDataset):
    """21 classes; 255 = border of objects."""

    def image_candidates(self, name: str) -> Iterator[Path]:
        """See FileDataset."""
        yield self.root / "JPEGImages" / f"{name}.jpg"

    def mask_candidates(self, image: Path) -> Iterator[Path]:
        """See FileDataset."""
        folders = (self.root / "SegmentationClass", self.root / "SegmentationClassAug")
        return mirrored_masks(image, self.root / "JPEGImages", folders)

    def all_images(self) -> Iterable[Path]:
        """See FileDataset."""
        return files_below(self.root / "JPEGImages")

    def builtin_splits(self) -> Iterable[str]:
        """See FileDataset."""
        return split_names(self._image_sets)

    def builtin_split(self, name: str) -> list[str]:
        """See FileDataset."""
        path = self._image_sets / f"{name}.txt"
        return read_split_file(path) if path.exists() else super().builtin_split(name)

    @property
    def _image_sets(self) -> Path:
        return self.root / "ImageSets" / "Segmentation"
