"""ADE20K as the scene parsing challenge has it: images and annotations, each with training and validation.

The download's masks store 0 for "other" and k for class k - 1; the masks that the authors of UniMatch V2 give out are
reduced already and store k for class k and 255 for "other". Both have the same names. A raw mask never holds 255 and
nearly every reduced one does, so a look at a few tells them apart; a data set of both is refused by its values.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from trainer.data.decode import ImageError
from trainer.data.files import FileDataset, files_below, mirrored
from trainer.data.labels import Labels
from trainer.taxonomy import Taxonomy

FOLDERS = {"train": "training", "val": "validation"}
LOOKED_AT = 32
"""So many masks are looked at for their form."""


class Ade20kDataset(FileDataset):
    """150 classes. Without a list, `train` and `val` are the folders training and validation."""

    def __init__(self, root: Path, taxonomy: Taxonomy, labels: Labels, lists: Path) -> None:
        if not (root / "classes.toml").exists() and _is_reduced(root / "annotations", labels):
            labels = Labels.of_ids(len(taxonomy), taxonomy.ignore_index)
        super().__init__(root, taxonomy, labels, lists)

    def images_named(self, name: str) -> Iterator[Path]:
        """See FileDataset."""
        for folder in FOLDERS.values():
            yield self.root / "images" / folder / f"{name}.jpg"

    def masks_of(self, image: Path) -> Iterator[Path]:
        """See FileDataset."""
        return mirrored(image, self.root / "images", (self.root / "annotations",))

    def every_image(self) -> Iterable[Path]:
        """See FileDataset."""
        return files_below(self.root / "images")

    def own_splits(self) -> Iterable[str]:
        """See FileDataset."""
        return (name for name, folder in FOLDERS.items() if (self.root / "images" / folder).is_dir())

    def own_split(self, name: str) -> list[str]:
        """See FileDataset."""
        images = sorted(files_below(self.root / "images" / FOLDERS[name])) if name in FOLDERS else []
        return [path.relative_to(self.root).as_posix() for path in images] or super().own_split(name)


def _is_reduced(annotations: Path, raw: Labels) -> bool:
    return any(_holds_255(mask, raw) for mask in islice(annotations.rglob("*.png"), LOOKED_AT))


def _holds_255(mask: Path, raw: Labels) -> bool:
    try:
        return bool((raw.stored(mask, mask) == raw.ignore_index).any())
    except ImageError:
        return False  # It is reported where it is read.
