"""Pascal VOC 2012: JPEGImages, SegmentationClass (or SegmentationClassAug) and ImageSets/Segmentation.

The lists in ImageSets (train, val, trainval) are splits as they are. SegmentationClassAug holds the 10582 masks of the
extended training set (Hariharan et al., ICCV 2011), which the UniMatch lists name as SegmentationClass.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.data.files import FileDataset, files_below, mirrored
from trainer.data.official_splits import list_names, read_list


class VocDataset(FileDataset):
    """21 classes; 255 = the border of objects."""

    def images_named(self, name: str) -> Iterator[Path]:
        """See FileDataset."""
        yield self.root / "JPEGImages" / f"{name}.jpg"

    def masks_of(self, image: Path) -> Iterator[Path]:
        """See FileDataset."""
        places = (self.root / "SegmentationClass", self.root / "SegmentationClassAug")
        return mirrored(image, self.root / "JPEGImages", places)

    def every_image(self) -> Iterable[Path]:
        """See FileDataset."""
        return files_below(self.root / "JPEGImages")

    def own_splits(self) -> Iterable[str]:
        """See FileDataset."""
        return list_names(self._sets)

    def own_split(self, name: str) -> list[str]:
        """See FileDataset."""
        path = self._sets / f"{name}.txt"
        return read_list(path) if path.exists() else super().own_split(name)

    @property
    def _sets(self) -> Path:
        return self.root / "ImageSets" / "Segmentation"
