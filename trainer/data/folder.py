"""The folder data set: DATASET/{classes.toml, images/, masks/, splits/}.

A split is a text file with one name a line (without extension).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.data.files import SUFFIXES, FileDataset, files_below, mirrored


class FolderDataset(FileDataset):
    """images/NAME.jpg (or .png, ...) and masks/NAME.png; what the masks store is said by classes.toml."""

    def images_named(self, name: str) -> Iterator[Path]:
        """See FileDataset."""
        for suffix in (*SUFFIXES, *map(str.upper, SUFFIXES)):
            yield self.root / "images" / f"{name}{suffix}"

    def masks_of(self, image: Path) -> Iterator[Path]:
        """See FileDataset."""
        return mirrored(image, self.root / "images", (self.root / "masks",))

    def every_image(self) -> Iterable[Path]:
        """See FileDataset."""
        return files_below(self.root / "images")
