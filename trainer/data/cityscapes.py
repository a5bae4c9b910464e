"""Cityscapes: leftImg8bit/{train,val,test,train_extra}/CITY, with masks in gtFine or gtCoarse.

Two kinds of masks are read: *_labelTrainIds.png, written by the data set's own scripts and named by the UniMatch lists,
store the 19 ids; *_labelIds.png, from the download, are mapped to them.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.data.files import FileDataset
from trainer.data.mask_encoding import MaskEncoding

IMAGE_END = "_leftImg8bit.png"
TRAIN_IDS = "_labelTrainIds.png"


class CityscapesDataset(FileDataset):
    """19 classes. Without a split file, a split is a folder of leftImg8bit."""

    image_root = "leftImg8bit"
    name_suffixes = (IMAGE_END,)

    def mask_candidates(self, image: Path) -> Iterator[Path]:
        """See FileDataset."""
        images = self.root / self.image_root
        if image.is_relative_to(images) and image.name.endswith(IMAGE_END):
            stem = image.relative_to(images).as_posix().removesuffix(IMAGE_END)
            for kind in ("gtFine", "gtCoarse"):
                for end in (TRAIN_IDS, "_labelIds.png"):
                    yield self.root / kind / f"{stem}_{kind}{end}"

    def encoding_of(self, mask: Path) -> MaskEncoding:
        """See FileDataset."""
        if mask.name.endswith(TRAIN_IDS) and not (self.root / "classes.toml").exists():
            return MaskEncoding.identity(len(self.taxonomy), self.taxonomy.ignore_index)
        return self.encoding

    def all_images(self) -> Iterable[Path]:
        """See FileDataset."""
        return (self.root / self.image_root).rglob(f"*{IMAGE_END}")

    def builtin_splits(self) -> Iterable[str]:
        """See FileDataset."""
        return (path.name for path in (self.root / self.image_root).iterdir() if path.is_dir())

    def builtin_split(self, name: str) -> list[str]:
        """See FileDataset."""
        images = sorted((self.root / self.image_root / name).glob(f"*/*{IMAGE_END}"))
        return [path.relative_to(self.root).as_posix() for path in images] or super().builtin_split(name)
