"""Our own layout, DATASET/{classes.toml, images/, masks/, splits/}, and plain folders of unlabelled images.

A split is a text file with one name per line, without extension.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.data.dataset import EVERYTHING, DatasetError
from trainer.data.files import SUFFIXES, FileDataset, files_below, mirrored_masks
from trainer.data.mask_encoding import MaskEncoding
from trainer.taxonomy import IGNORE, Taxonomy

SUFFIXES_IN_EITHER_CASE = (*SUFFIXES, *map(str.upper, SUFFIXES))


class FolderDataset(FileDataset):
    """images/NAME.jpg (or .png, ...) and masks/NAME.png; classes.toml states what the masks store."""

    def image_candidates(self, name: str) -> Iterator[Path]:
        """See FileDataset."""
        for suffix in SUFFIXES_IN_EITHER_CASE:
            yield self.root / "images" / f"{name}{suffix}"

    def mask_candidates(self, image: Path) -> Iterator[Path]:
        """See FileDataset."""
        return mirrored_masks(image, self.root / "images", (self.root / "masks",))

    def all_images(self) -> Iterable[Path]:
        """See FileDataset."""
        return files_below(self.root / "images")


class ImageFolder(FileDataset):
    """A plain folder of images at any depth, without masks and classes.

    The split EVERYTHING contains all images; split files may list some of them by path.
    """

    def __init__(self, root: Path, split_folder: Path) -> None:
        super().__init__(root, Taxonomy((), ()), MaskEncoding.identity(0, IGNORE), split_folder)

    def builtin_split(self, name: str) -> list[str]:
        """See FileDataset."""
        if self.splits():
            return super().builtin_split(name)
        raise DatasetError(
            f"{self.root}: is a plain folder of images and has no split {name!r}; set "
            f'data.unlabelled = "{EVERYTHING}" to use all images, or list some in {self.split_folder / name}.txt'
        )

    def image_candidates(self, name: str) -> Iterator[Path]:
        """See FileDataset."""
        for folder in (self.root, self.root / "images"):
            for suffix in ("", *SUFFIXES_IN_EITHER_CASE):
                yield folder / f"{name}{suffix}"

    def mask_candidates(self, image: Path) -> Iterator[Path]:  # noqa: ARG002 (there are no masks)
        """See FileDataset."""
        return iter(())

    def all_images(self) -> Iterable[Path]:
        """See FileDataset."""
        return files_below(self.root)
