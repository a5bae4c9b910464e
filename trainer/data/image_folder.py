"""A plain folder of images: what unlabelled images come in. No masks, no classes, any depth."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.data.dataset import EVERYTHING, DatasetError
from trainer.data.files import SUFFIXES, FileDataset, files_below
from trainer.data.labels import Labels
from trainer.taxonomy import IGNORE, Taxonomy


class ImageFolder(FileDataset):
    """Images below a folder. The split EVERYTHING has all of them; lists in `lists` name others by their paths."""

    def __init__(self, root: Path, lists: Path) -> None:
        super().__init__(root, Taxonomy((), ()), Labels.of_ids(0, IGNORE), lists)

    def own_split(self, name: str) -> list[str]:
        """See FileDataset."""
        if self.splits():
            return super().own_split(name)
        raise DatasetError(
            f"{self.root}: is a plain folder of images without lists, so there is no split {name!r}; set "
            f'data.unlabelled = "{EVERYTHING}" to take all of them, or list some in {self.lists / name}.txt'
        )

    def images_named(self, name: str) -> Iterator[Path]:
        """See FileDataset."""
        for folder in (self.root, self.root / "images"):
            for suffix in ("", *SUFFIXES, *map(str.upper, SUFFIXES)):
                yield folder / f"{name}{suffix}"

    def masks_of(self, image: Path) -> Iterator[Path]:  # noqa: ARG002 (there are none)
        """See FileDataset."""
        return iter(())

    def every_image(self) -> Iterable[Path]:
        """See FileDataset."""
        return files_below(self.root)
