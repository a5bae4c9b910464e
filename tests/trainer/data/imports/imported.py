"""Import a source in this process, and read what was written with the trainer's own reader."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.command_line import main
from trainer.data.readers.layouts import open_dataset

IGNORE = 255


@dataclass(frozen=True, slots=True)
class Result:
    """What an import wrote: class names, masks by image name, names by split, and import.json."""

    root: Path
    classes: tuple[str, ...]
    masks: dict[str, npt.NDArray[np.int64]]
    splits: dict[str, list[str]]
    account: dict[str, Any]

    def losses(self, kind: str) -> list[dict[str, Any]]:
        return [loss for loss in self.account["losses"] if loss["kind"] == kind]


def import_folder(source: Path, *arguments: str) -> Result:
    """Run `import` into a folder beside the source, without drawing images for validation."""
    root = source.with_name(f"{source.stem}-imported")
    share = () if "--val-share" in arguments else ("--val-share", "0")
    assert main(["import", str(source), "--out", str(root), *share, *arguments]) == 0
    return read_result(root)


def read_result(root: Path) -> Result:
    dataset = open_dataset(root)
    splits = {name: (root / f"splits/{name}.txt").read_text().splitlines() for name in dataset.splits()}
    masks = {}
    for name in dataset.splits():
        for sample in dataset.split(name):
            if dataset.has_mask(sample):
                masks[sample.name] = dataset.read_pair(sample)[1]
    account = json.loads((root / "import.json").read_text())
    return Result(root, dataset.taxonomy.names, masks, splits, account)


def error_of(capsys: Any, source: Path, *arguments: str) -> str:
    """The sentence that a user reads."""
    assert main(["import", str(source), "--out", str(source.with_name("none")), *arguments]) == 1
    assert not source.with_name("none").exists()
    return str(capsys.readouterr().err)


def photograph(path: Path, *, size: tuple[int, int] = (30, 40), orientation: int = 1, seed: int = 0) -> Path:
    """Write an image of `size` (height, width) as it is stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def truth(size: tuple[int, int] = (30, 40), *, classes: int = 3, shift: int = 0) -> npt.NDArray[np.uint8]:
    """Ids: 0, a rectangle of 1 with a hole of 0, and (of three classes) one of 2 that touches the right edge."""
    ids_HW = np.zeros(size, dtype=np.uint8)
    ids_HW[5 + shift : 20 + shift, 8:20] = 1
    ids_HW[9 + shift : 12 + shift, 12:15] = 0
    if classes > 2:
        ids_HW[15:25, 30:] = 2
    return ids_HW


def save_mask(path: Path, values: npt.NDArray[Any], palette: list[int] | None = None) -> Path:
    """Write a mask with one channel, or an indexed one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette(palette)
    image.save(path)
    return path
