"""Pascal VOC 2012: JPEGImages, SegmentationClass (or SegmentationClassAug) and ImageSets/Segmentation.

The lists in ImageSets (train, val, trainval) are splits. SegmentationClassAug contains the 10582 masks of the extended
training set (Hariharan et al., ICCV 2011), which the UniMatch lists call SegmentationClass.
"""

from collections.abc import Iterable
from pathlib import Path

from trainer.data.files import FileDataset
from trainer.data.split_files import read_split_file, split_names


class VocDataset(FileDataset):
    """21 classes; 255 = border of objects."""

    image_root = "JPEGImages"
    mask_roots = ("SegmentationClass", "SegmentationClassAug")

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
