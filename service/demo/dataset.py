"""The textures as the demonstration reads them: a folder data set, and how good masks of it are."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.demo.pictures import Color
from service.runs.gate import confusion, miou

IGNORED = 255

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Dataset:
    """classes.toml, images/, masks/ and splits/ in a folder."""

    folder: Path

    def images(self, split: str) -> list[Path]:
        """The images of a split, in its order."""
        names = (self.folder / "splits" / f"{split}.txt").read_text(encoding="utf-8").split()
        return [self.folder / "images" / f"{name}.png" for name in names]

    def mask_file(self, image: Path) -> Path:
        """The mask of a labelled image."""
        return self.folder / "masks" / image.name

    def truth(self, image: Path) -> Mask:
        """The ids of a labelled image, uint8 [H, W]."""
        return np.asarray(Image.open(self.mask_file(image)))

    def classes(self) -> dict[str, Color]:
        """Colours by name, in the order of the ids."""
        table = tomllib.loads((self.folder / "classes.toml").read_text(encoding="utf-8"))
        return {entry["name"]: (*entry["color"],) for entry in table["classes"]}

    def miou(self, images: list[Path], masks: list[Mask]) -> float:
        """How good the masks are that somebody gave for these images, 0..1."""
        classes = len(self.classes())
        matrix_KK = np.zeros((classes, classes), dtype=np.int64)
        for image, mask in zip(images, masks, strict=True):
            matrix_KK += confusion(self.truth(image), mask, classes, IGNORED)
        return miou(matrix_KK)[0]
