"""Write tiny data sets in the public layouts, with split files like the official UniMatch lists.

The classes differ in colour.

root = write_layout(tmp_path / "voc", "voc")
dataset = open_dataset(root)
dataset.split(SPLITS["voc"].labelled)
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

HEIGHT, WIDTH = 48, 64
Pixels = npt.NDArray[np.uint8]


class SplitNames(NamedTuple):
    """Values of the recipe's data.labelled, data.unlabelled and data.val for a layout."""

    labelled: str
    unlabelled: str
    val: str


OFFICIAL = {
    "voc": ("92", "183", "366", "732", "1464"),
    "cityscapes": ("1_16", "1_8", "1_4", "1_2"),
    "ade20k": ("1_64", "1_32", "1_16", "1_8"),
    "coco": ("1_512", "1_256", "1_128", "1_64", "1_32"),
}
"""Settings of the paper. Each gets ROOT/splits/SETTING/{labeled,unlabeled}.txt; all share ROOT/splits/val.txt."""

LAYOUTS = (*OFFICIAL, "huggingface")

SPLITS = {
    name: SplitNames(f"{settings[0]}/labeled", f"{settings[0]}/unlabeled", "val") for name, settings in OFFICIAL.items()
} | {"huggingface": SplitNames("labelled", "unlabelled", "val")}
"""Split names that `write_layout` always writes, per layout."""

CLASSES = {"voc": 21, "cityscapes": 19, "ade20k": 150, "coco": 81, "huggingface": 2}

STORED = {"voc": (0, 15), "cityscapes": (7, 23), "ade20k": (2, 3), "coco": (0, 18), "huggingface": (0, 1)}
"""The two stored values of the masks, left and right of a border."""

IDS = {"voc": (0, 15), "cityscapes": (0, 10), "ade20k": (1, 2), "coco": (0, 18), "huggingface": (0, 1)}
"""Class ids of these values."""

VOID = {"voc": 255, "cityscapes": 3, "ade20k": 0, "coco": None, "huggingface": 255}
"""Stored value of the ignored top row; None for COCO masks, which have no such row."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One image: role, paths in the split file, and path of the mask that is written, if any."""

    role: str
    image: str
    mask: str
    stored_mask: str | None


def write_layout(root: Path, name: str, *, labelled: int = 4, unlabelled: int = 4, val: int = 2) -> Path:
    """Write a data set in the layout `name` (one of LAYOUTS) to `root`, and return `root`."""
    rng = np.random.default_rng(0)
    roles = ["labelled"] * labelled + ["unlabelled"] * unlabelled + ["val"] * val
    if name == "huggingface":
        _write_huggingface(root, roles, rng)
        return root
    listed = [NAMING[name](index, role) for index, role in enumerate(roles)]
    for item in listed:
        image_HWC, mask_HW = draw_pair(name, rng)
        save(root / item.image, image_HWC)
        if item.stored_mask:
            save(root / item.stored_mask, mask_HW)
    _write_lists(root, name, listed)
    if name == "voc":
        _write_image_sets(root, listed)
    return root


def draw_pair(name: str, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Draw an image (uint8 [H,W,3]) and its mask as the layout stores it (uint8 [H,W])."""
    border = int(rng.integers(WIDTH // 4, 3 * WIDTH // 4))
    right_HW = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    right_HW[:, border:] = True
    mask_HW = np.where(right_HW, STORED[name][1], STORED[name][0]).astype(np.uint8)
    void = VOID[name]
    if void is not None:
        mask_HW[0] = void
    noise_HWC = rng.integers(0, 60, (HEIGHT, WIDTH, 3))
    return (right_HW[..., None] * 180 + noise_HWC).astype(np.uint8), mask_HW


def save(path: Path, pixels: Pixels) -> None:
    """Write an image and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _voc(index: int, role: str) -> Listed:
    # The official lists also name masks that VOC 2012 itself, with 1464 + 1449 masks, does not have.
    name = f"2007_{index:06}"
    mask = f"SegmentationClass/{name}.png"
    return Listed(role, f"JPEGImages/{name}.jpg", mask, mask if role != "unlabelled" else None)


def _cityscapes(index: int, role: str) -> Listed:
    # The download contains labelIds; the official lists name labelTrainIds, which scripts of the data set write.
    folder, city = ("val", "frankfurt") if role == "val" else ("train", "aachen")
    stem = f"{city}_{index:06}_000019"
    mask = f"gtFine/{folder}/{city}/{stem}_gtFine_"
    image = f"leftImg8bit/{folder}/{city}/{stem}_leftImg8bit.png"
    return Listed(role, image, f"{mask}labelTrainIds.png", f"{mask}labelIds.png")


def _ade20k(index: int, role: str) -> Listed:
    folder, prefix = ("validation", "ADE_val") if role == "val" else ("training", "ADE_train")
    stem = f"{folder}/{prefix}_{index + 1:08}"
    return Listed(role, f"images/{stem}.jpg", f"annotations/{stem}.png", f"annotations/{stem}.png")


def _coco(index: int, role: str) -> Listed:
    folder = "val2017" if role == "val" else "train2017"
    stem = f"{index + 9:012}"
    mask = f"masks/{stem}.png"
    return Listed(role, f"{folder}/{stem}.jpg", mask, mask if role != "unlabelled" else None)


NAMING: dict[str, Callable[[int, str], Listed]] = {
    "voc": _voc,
    "cityscapes": _cityscapes,
    "ade20k": _ade20k,
    "coco": _coco,
}


def _write_lists(root: Path, name: str, listed: list[Listed]) -> None:
    def write(path: Path, role: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{item.image} {item.mask}\n" for item in listed if item.role == role))

    for setting in OFFICIAL[name]:
        write(root / "splits" / setting / "labeled.txt", "labelled")
        write(root / "splits" / setting / "unlabeled.txt", "unlabelled")
    write(root / "splits" / "val.txt", "val")


def _write_image_sets(root: Path, listed: list[Listed]) -> None:
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True)
    for split, role in (("train", "labelled"), ("val", "val")):
        names = [Path(item.image).stem for item in listed if item.role == role]
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def _write_huggingface(root: Path, roles: list[str], rng: np.random.Generator) -> None:
    from datasets import Dataset, DatasetDict, Features
    from datasets import Image as ImageFeature

    splits = {}
    for role in ("labelled", "unlabelled", "val"):
        pairs = [draw_pair("huggingface", rng) for _ in range(roles.count(role))]
        columns = {"image": [Image.fromarray(image_HWC) for image_HWC, _ in pairs]}
        if role != "unlabelled":
            columns["mask"] = [Image.fromarray(mask_HW) for _, mask_HW in pairs]
        splits[role] = Dataset.from_dict(columns, features=Features(dict.fromkeys(columns, ImageFeature())))
    DatasetDict(splits).save_to_disk(root)
    (root / "classes.toml").write_text(
        '[[classes]]\nname = "dark"\ncolor = [40, 40, 90]\n[[classes]]\nname = "bright"\ncolor = [240, 200, 80]\n'
    )
