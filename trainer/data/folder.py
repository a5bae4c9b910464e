"""Our own layout, DATASET/{classes.toml, images/, masks/, splits/}, and plain folders of unlabelled images.

A split is a text file with one name per line, without extension.
"""

from pathlib import Path

from trainer.data.dataset import EVERYTHING, DatasetError
from trainer.data.files import SUFFIXES, FileDataset
from trainer.data.mask_encoding import MaskEncoding
from trainer.taxonomy import IGNORE, Taxonomy


class FolderDataset(FileDataset):
    """images/NAME.jpg (or .png, ...) and masks/NAME.png; classes.toml states what the masks store."""

    image_root = "images"
    mask_roots = ("masks",)
    name_suffixes = (*SUFFIXES, *map(str.upper, SUFFIXES))


class ImageFolder(FileDataset):
    """A plain folder of images at any depth, without masks and classes.

    The split EVERYTHING contains all images; split files may list some of them by path.
    """

    image_root = ""
    name_folders = ("", "images")
    name_suffixes = ("", *FolderDataset.name_suffixes)

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
