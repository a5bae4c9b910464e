"""Read a data set folder and score predicted masks against its labels."""

# H, W pixels; K classes; rows of a confusion matrix are the true class, columns the predicted class

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from demo.comparison import Color

IGNORE_INDEX = 255

Mask = npt.NDArray[np.uint8]


class Miou(NamedTuple):
    """Mean IoU, 0..1, and the classes that it is the mean of, as in "over 5 of 6 classes"."""

    value: float
    over: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder with classes.toml, images/, masks/ and splits/."""

    folder: Path

    def images(self, split: str) -> list[Path]:
        """Image files of a split, in the order of its file."""
        names = (self.folder / "splits" / f"{split}.txt").read_text(encoding="utf-8").split()
        return [self.folder / "images" / f"{name}.png" for name in names]

    def mask_file(self, image: Path) -> Path:
        """Mask file of a labelled image."""
        return self.folder / "masks" / image.name

    def label(self, image: Path) -> Mask:
        """Class ids of a labelled image, uint8 [H, W]."""
        return np.asarray(Image.open(self.mask_file(image)))

    def classes(self) -> dict[str, Color]:
        """Colour by class name, in the order of the ids."""
        table = tomllib.loads((self.folder / "classes.toml").read_text(encoding="utf-8"))
        return {entry["name"]: (*entry["color"],) for entry in table["classes"]}

    def miou(self, images: list[Path], masks: list[Mask]) -> Miou:
        """Mean IoU of predicted masks over the classes that occur in them or in the labels of `images`."""
        classes = len(self.classes())
        confusion_KK = np.zeros((classes, classes), dtype=np.int64)
        for image, mask_HW in zip(images, masks, strict=True):
            label_HW = self.label(image)
            counted_HW = label_HW != IGNORE_INDEX
            cells = label_HW[counted_HW].astype(np.int64) * classes + mask_HW[counted_HW]
            confusion_KK += np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
        intersection_K = confusion_KK.diagonal()
        union_K = confusion_KK.sum(axis=1) + confusion_KK.sum(axis=0) - intersection_K
        counted_K = union_K > 0
        value = float((intersection_K / np.maximum(union_K, 1))[counted_K].mean())
        return Miou(value, f"{counted_K.sum()} of {classes} classes")
