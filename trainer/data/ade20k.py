"""ADE20K in the layout of the scene parsing challenge: images and annotations, each with training and validation.

The masks of the download store 0 for "other" and k for class k - 1. The masks that the authors of UniMatch V2 publish
store k for class k and 255 for "other", under the same file names. A raw mask never contains 255 and almost every
reduced one does, so a sample of the masks tells them apart. A data set that mixes both fails at the first unknown
value.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import ClassVar

from trainer.data.decode import ImageError
from trainer.data.files import FileDataset
from trainer.data.mask_encoding import MaskEncoding
from trainer.taxonomy import Taxonomy

CHECKED_MASKS = 32
"""Masks that are read to tell raw from reduced ones."""


class Ade20kDataset(FileDataset):
    """150 classes. Without a split file, `train` and `val` are the folders training and validation."""

    image_root = "images"
    mask_roots = ("annotations",)
    name_folders = ("training", "validation")
    folder_of_split: ClassVar[Mapping[str, str]] = {"train": "images/training", "val": "images/validation"}

    def __init__(self, root: Path, taxonomy: Taxonomy, encoding: MaskEncoding, split_folder: Path) -> None:
        if not (root / "classes.toml").exists() and _is_reduced(root / "annotations", encoding):
            encoding = MaskEncoding.identity(len(taxonomy), taxonomy.ignore_index)
        super().__init__(root, taxonomy, encoding, split_folder)


def _is_reduced(annotations: Path, raw: MaskEncoding) -> bool:
    return any(_contains_255(mask, raw) for mask in islice(annotations.rglob("*.png"), CHECKED_MASKS))


def _contains_255(mask: Path, raw: MaskEncoding) -> bool:
    try:
        return bool((raw.stored_values(mask, mask) == raw.ignore_index).any())
    except ImageError:
        return False  # reported when the mask is read for use
