"""Cityscapes: leftImg8bit/{train,val,test,train_extra}/CITY and gtFine (or gtCoarse) beside it.

Masks: *_labelTrainIds.png, which the data set's own scripts make and the UniMatch lists name, hold the 19 ids;
*_labelIds.png, which the download holds, are mapped to them.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.data.files import FileDataset
from trainer.data.labels import Labels

IMAGE_END = "_leftImg8bit.png"
TRAIN_IDS = "_labelTrainIds.png"


class CityscapesDataset(FileDataset):
    """19 classes. Without a list, a split is a folder of leftImg8bit."""

    def images_named(self, name: str) -> Iterator[Path]:
        """See FileDataset."""
        yield self._images / f"{name}{IMAGE_END}"

    def masks_of(self, image: Path) -> Iterator[Path]:
        """See FileDataset."""
        if image.is_relative_to(self._images) and image.name.endswith(IMAGE_END):
            stem = image.relative_to(self._images).as_posix().removesuffix(IMAGE_END)
            for kind in ("gtFine", "gtCoarse"):
                for end in (TRAIN_IDS, "_labelIds.png"):
                    yield self.root / kind / f"{stem}_{kind}{end}"

    def labels_of(self, mask: Path) -> Labels:
        """See FileDataset."""
        if mask.name.endswith(TRAIN_IDS) and not (self.root / "classes.toml").exists():
            return Labels.of_ids(len(self.taxonomy), self.taxonomy.ignore_index)
        return self.labels

    def every_image(self) -> Iterable[Path]:
        """See FileDataset."""
        return self._images.rglob(f"*{IMAGE_END}")

    def own_splits(self) -> Iterable[str]:
        """See FileDataset."""
        return (path.name for path in self._images.iterdir() if path.is_dir())

    def own_split(self, name: str) -> list[str]:
        """See FileDataset."""
        images = sorted((self._images / name).glob(f"*/*{IMAGE_END}"))
        return [path.relative_to(self.root).as_posix() for path in images] or super().own_split(name)

    @property
    def _images(self) -> Path:
        return self.root / "leftImg8bit"
