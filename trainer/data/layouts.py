"""Which layout a folder has, and the data set that it makes."""

from collections.abc import Callable
from pathlib import Path

from trainer.data.ade20k import Ade20kDataset
from trainer.data.cityscapes import CityscapesDataset
from trainer.data.classes_file import public_classes, read_classes
from trainer.data.coco import CocoDataset
from trainer.data.dataset import DatasetError, SegmentationDataset
from trainer.data.folder import FolderDataset
from trainer.data.huggingface import HuggingFaceDataset
from trainer.data.image_folder import ImageFolder
from trainer.data.voc import VocDataset

MARKS: dict[str, tuple[str, ...]] = {
    "huggingface": ("dataset_dict.json", "dataset_info.json"),
    "voc": ("JPEGImages",),
    "cityscapes": ("leftImg8bit",),
    "ade20k": ("annotations/training", "annotations/validation"),
    "coco": ("train2017", "val2017"),
    "folder": ("classes.toml",),
}
"""What lies in a folder of each layout: any one of these tells it. The first layout that fits is taken."""


def open_dataset(root: Path, layout: str = "auto", splits: Path | None = None) -> SegmentationDataset:
    """Open the data set at `root`.

    Args:
        root: its folder.
        layout: recipe's data.format; "auto" goes by what lies in the folder.
        splits: folder of the split files; None = ROOT/splits.

    Raises:
        DatasetError, TaxonomyError: it is none, with what was looked for.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: there is no such folder; set data.root to a data set")
    if layout == "auto":
        layout = _detected(root)
    elif layout not in MARKS:
        raise DatasetError(f"data.format = {layout!r}: must be auto or one of {', '.join(MARKS)}")
    return OPENERS[layout](root, splits or root / "splits")


def open_unlabelled(root: Path, layout: str = "auto", splits: Path | None = None) -> SegmentationDataset:
    """Open what unlabelled images come from: a data set, or a plain folder of images without classes.

    Its split EVERYTHING has all images. Arguments and errors as those of `open_dataset`.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: there is no such folder; set data.unlabelled_root to images or a data set")
    if layout == "auto" and not _fitting(root):
        return ImageFolder(root, splits or root / "splits")
    return open_dataset(root, layout, splits)


def _fitting(root: Path) -> list[str]:
    return [layout for layout, marks in MARKS.items() if any((root / mark).exists() for mark in marks)]


def _detected(root: Path) -> str:
    if fitting := _fitting(root):
        return fitting[0]
    looked_for = ", ".join(f"{' or '.join(marks)} ({layout})" for layout, marks in MARKS.items())
    below = [path for path in sorted(root.glob("*/")) if path.is_dir() and _fitting(path)]
    hint = f"{below[0]} is one: give that" if below else "give a data set's own folder, or write a classes.toml"
    raise DatasetError(f"{root}: is no data set that is known; looked for {looked_for}. {hint}")


def _folder(root: Path, lists: Path) -> SegmentationDataset:
    return FolderDataset(root, *read_classes(root / "classes.toml"), lists)


def _voc(root: Path, lists: Path) -> SegmentationDataset:
    return VocDataset(root, *public_classes("voc", root), lists)


def _cityscapes(root: Path, lists: Path) -> SegmentationDataset:
    return CityscapesDataset(root, *public_classes("cityscapes", root), lists)


def _ade20k(root: Path, lists: Path) -> SegmentationDataset:
    return Ade20kDataset(root, *public_classes("ade20k", root), lists)


def _coco(root: Path, lists: Path) -> SegmentationDataset:
    return CocoDataset(root, *public_classes("coco", root), lists)


OPENERS: dict[str, Callable[[Path, Path], SegmentationDataset]] = {
    "huggingface": HuggingFaceDataset,
    "voc": _voc,
    "cityscapes": _cityscapes,
    "ade20k": _ade20k,
    "coco": _coco,
    "folder": _folder,
}
