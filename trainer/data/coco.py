"""COCO 2017: train2017, val2017, unlabeled2017, and masks/NAME.png of 81 classes: background and the 80 things.

The masks are those that the authors of UniMatch give out, or that `prepare-coco` makes of COCO's own annotations. Where
only the pixel maps of COCO-Stuff are there (stuffthingmaps/train2017/NAME.png), they are read as they are.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.data.files import FileDataset, files_below
from trainer.data.labels import Labels

FOLDERS = {"train": "train2017", "val": "val2017", "unlabelled": "unlabeled2017"}

UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""Category ids up to 90 that COCO never used."""

THING_IDS = tuple(index for index in range(1, 91) if index not in UNUSED_IDS)
"""COCO's category ids of the 80 things; a thing's class is its position here, plus 1."""

CLASS_OF_THING = {thing: position + 1 for position, thing in enumerate(THING_IDS)}

STUFF_IDS = range(92, 183)
"""COCO-Stuff's ids of what is no thing: background."""

PIXEL_MAPS = ("stuffthingmaps", "stuffthingmaps_trainval2017")


class CocoDataset(FileDataset):
    """81 classes. Without a list, `train`, `val` and `unlabelled` are the folders of 2017."""

    def images_named(self, name: str) -> Iterator[Path]:
        """See FileDataset."""
        for folder in FOLDERS.values():
            yield self.root / folder / f"{name}.jpg"

    def masks_of(self, image: Path) -> Iterator[Path]:
        """See FileDataset."""
        name = f"{image.stem}.png"
        yield self.root / "masks" / name
        for folder in ("masks", *PIXEL_MAPS):
            yield self.root / folder / image.parent.name / name

    def labels_of(self, mask: Path) -> Labels:
        """See FileDataset."""
        of_pixel_map = mask.relative_to(self.root).parts[0] in PIXEL_MAPS if mask.is_relative_to(self.root) else False
        return pixel_map_labels(self.taxonomy.ignore_index) if of_pixel_map else self.labels

    def every_image(self) -> Iterable[Path]:
        """See FileDataset."""
        return (path for folder in FOLDERS.values() for path in files_below(self.root / folder))

    def own_splits(self) -> Iterable[str]:
        """See FileDataset."""
        return (name for name, folder in FOLDERS.items() if (self.root / folder).is_dir())

    def own_split(self, name: str) -> list[str]:
        """See FileDataset."""
        images = sorted(files_below(self.root / FOLDERS[name])) if name in FOLDERS else []
        return [path.relative_to(self.root).as_posix() for path in images] or super().own_split(name)


def pixel_map_labels(ignore_index: int) -> Labels:
    """What COCO-Stuff's pixel maps store: the category id minus 1, and 255 where nobody labelled anything."""
    meaning = {thing - 1: index for thing, index in CLASS_OF_THING.items()}
    return Labels.of_values(meaning | {stuff - 1: 0 for stuff in STUFF_IDS}, (255,), ignore_index)
