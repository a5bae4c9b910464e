"""COCO 2017: train2017, val2017, unlabeled2017, and masks/NAME.png of 81 classes: background and the 80 things.

The masks are those published by the authors of UniMatch, or written by `prepare-coco` from COCO's annotations. Images
without such a mask use the pixel maps of COCO-Stuff (stuffthingmaps/train2017/NAME.png), if present.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from trainer.data.files import FileDataset, files_below
from trainer.data.mask_encoding import MaskEncoding

UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""Category ids up to 90 that COCO does not use."""

THING_IDS = tuple(index for index in range(1, 91) if index not in UNUSED_IDS)
"""COCO's category ids of the 80 things; the class of a thing is its position here, plus 1."""

CLASS_OF_THING = {thing: position + 1 for position, thing in enumerate(THING_IDS)}

STUFF_IDS = range(92, 183)
"""COCO-Stuff's category ids of stuff, which is background here."""

PIXEL_MAPS = ("stuffthingmaps", "stuffthingmaps_trainval2017")


class CocoDataset(FileDataset):
    """81 classes. Without a split file, `train`, `val` and `unlabelled` are the folders of 2017."""

    image_root = ""
    name_folders = ("train2017", "val2017", "unlabeled2017")
    folder_of_split: ClassVar[Mapping[str, str]] = dict(zip(("train", "val", "unlabelled"), name_folders, strict=True))

    def mask_candidates(self, image: Path) -> Iterator[Path]:
        """See FileDataset."""
        name = f"{image.stem}.png"
        yield self.root / "masks" / name
        for folder in ("masks", *PIXEL_MAPS):
            yield self.root / folder / image.parent.name / name

    def encoding_of(self, mask: Path) -> MaskEncoding:
        """See FileDataset."""
        is_pixel_map = mask.is_relative_to(self.root) and mask.relative_to(self.root).parts[0] in PIXEL_MAPS
        return pixel_map_encoding(self.taxonomy.ignore_index) if is_pixel_map else self.encoding

    def all_images(self) -> Iterable[Path]:
        """See FileDataset."""
        return (path for folder in self.name_folders for path in files_below(self.root / folder))


def pixel_map_encoding(ignore_index: int) -> MaskEncoding:
    """Encoding of COCO-Stuff's pixel maps: category id minus 1, and 255 for unlabelled pixels."""
    id_of_value = {thing - 1: index for thing, index in CLASS_OF_THING.items()}
    return MaskEncoding.from_values(id_of_value | {stuff - 1: 0 for stuff in STUFF_IDS}, (255,), ignore_index)
