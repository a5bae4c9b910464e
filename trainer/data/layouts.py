"""Detect the layout of a data set folder, and open it."""

from pathlib import Path

from trainer.data import file_layouts
from trainer.data.classes_file import public_classes, read_classes
from trainer.data.dataset import DatasetError, SegmentationDataset
from trainer.data.files import FileDataset
from trainer.data.formats.rgb import ValueRange
from trainer.data.huggingface import HuggingFaceDataset

MARKS: dict[str, tuple[str, ...]] = {
    "huggingface": ("dataset_dict.json", "dataset_info.json"),
    "voc": ("JPEGImages",),
    "cityscapes": ("leftImg8bit",),
    "ade20k": ("annotations/training", "annotations/validation"),
    "coco": ("train2017", "val2017"),
    "folder": ("classes.toml",),
}
"""Files or folders that each identify a layout. The first layout that matches is used."""

PUBLIC_LAYOUTS: dict[str, type[FileDataset]] = {
    "voc": file_layouts.VocDataset,
    "cityscapes": file_layouts.CityscapesDataset,
    "ade20k": file_layouts.Ade20kDataset,
    "coco": file_layouts.CocoDataset,
}


def open_dataset(
    root: Path, layout: str = "auto", splits: Path | None = None, value_range: ValueRange | None = None
) -> SegmentationDataset:
    """Open the data set at `root`.

    `layout` is "auto" or a key of MARKS, `splits` the folder of the split files, `value_range` the recipe's
    `data.range`. Raises DatasetError or TaxonomyError if the folder is not a data set.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; set data.root to a data set")
    if layout == "auto":
        layout = _detect(root)
    elif layout not in MARKS:
        raise DatasetError(f"data.format = {layout!r}: must be auto or one of {', '.join(MARKS)}")
    dataset = _open(root, layout, splits or root / "splits")
    dataset.value_range = value_range
    return dataset


def open_unlabelled(
    root: Path, layout: str = "auto", splits: Path | None = None, value_range: ValueRange | None = None
) -> SegmentationDataset:
    """Open a source of unlabelled images: a data set, or a plain folder of images."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; set data.unlabelled_root to images or a data set")
    if layout == "auto" and not _matching(root):
        folder = file_layouts.ImageFolder(root, splits or root / "splits")
        folder.value_range = value_range
        return folder
    return open_dataset(root, layout, splits, value_range)


def _open(root: Path, layout: str, splits: Path) -> SegmentationDataset:
    if layout == "huggingface":
        return HuggingFaceDataset(root, splits)
    if layout == "folder":
        return file_layouts.FolderDataset(root, *read_classes(root / "classes.toml"), splits)
    return PUBLIC_LAYOUTS[layout](root, *public_classes(layout, root), splits)


def _matching(root: Path) -> list[str]:
    return [layout for layout, marks in MARKS.items() if any((root / mark).exists() for mark in marks)]


def _detect(root: Path) -> str:
    if matching := _matching(root):
        return matching[0]
    expected = ", ".join(f"{' or '.join(marks)} ({layout})" for layout, marks in MARKS.items())
    below = [path for path in sorted(root.glob("*/")) if path.is_dir() and _matching(path)]
    remedy = f"use {below[0]}, which is a data set" if below else "give the folder of a data set, or add a classes.toml"
    raise DatasetError(f"{root}: not a known data set, found none of {expected}; {remedy}")
