"""Detect the layout of a data set folder, and open it."""

import json
import shlex
from itertools import islice
from pathlib import Path

from trainer.data.classes_file import public_classes, read_classes
from trainer.data.dataset import DatasetError, SegmentationDataset
from trainer.data.formats.rgb import ValueRange
from trainer.data.mask_encoding import MaskEncoding
from trainer.data.readers import file_layouts
from trainer.data.readers.benchmark_names import TITLES, foreign_name
from trainer.data.readers.files import FileDataset
from trainer.data.readers.huggingface import HuggingFaceDataset
from trainer.data.readers.voc_class_files import find_class_file, read_class_file
from trainer.taxonomy import Taxonomy

MARKS: dict[str, tuple[str, ...]] = {
    "huggingface": ("dataset_dict.json", "dataset_info.json"),
    "voc": ("JPEGImages",),
    "cityscapes": ("leftImg8bit",),
    "ade20k": ("annotations/training", "annotations/validation"),
    "coco": ("train2017", "val2017"),
    "folder": ("classes.toml",),
}
"""Files or folders that each identify a layout. The first layout that matches is used."""

MAX_JSON_FILES = 20
"""Files that are read to recognise annotations: other formats have one per image."""

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
    `data.range`. Raises DatasetError or TaxonomyError if the folder is not a data set, or if its classes are unknown.
    """
    dataset, assumed = _open(root, layout, splits or root / "splits")
    if assumed and layout == "auto" and isinstance(dataset, FileDataset):
        title = TITLES[assumed]
        if name := foreign_name(assumed, dataset.all_images()):
            write = "write (from annotations, prepare-coco does)" if assumed == "coco" else "write"
            raise DatasetError(
                f"{root}: has the folders of {title}, but not its names: an image is called {name!r}; {write} the "
                f'masks\' classes into {root / "classes.toml"}, or set data.format = "{assumed}" (--format {assumed}) '
                f"if they are the {len(dataset.taxonomy)} classes of {title}"
            )
        dataset.assumed = title
    dataset.value_range = value_range
    return dataset


def open_unlabelled(
    root: Path, layout: str = "auto", splits: Path | None = None, value_range: ValueRange | None = None
) -> SegmentationDataset:
    """Open a source of unlabelled images: a data set of any classes, or a plain folder of images."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; set data.unlabelled_root to images or a data set")
    splits = splits or root / "splits"
    is_plain = layout == "auto" and not _matching(root)
    dataset = file_layouts.ImageFolder(root, splits) if is_plain else _open(root, layout, splits)[0]
    dataset.value_range = value_range
    return dataset


def _open(root: Path, layout: str, splits: Path) -> tuple[SegmentationDataset, str]:
    """The data set, and the layout whose public classes it has, if the folder has none of its own."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; set data.root to a data set")
    if layout == "auto":
        layout = _detect(root)
    elif layout not in MARKS:
        raise DatasetError(f"data.format = {layout!r}: must be auto or one of {', '.join(MARKS)}")
    if layout == "huggingface":
        return HuggingFaceDataset(root, splits), ""
    if layout == "folder":
        return file_layouts.FolderDataset(root, *read_classes(root / "classes.toml"), splits), ""
    if own := _own_classes(root, layout):
        return PUBLIC_LAYOUTS[layout](root, *own, splits), ""
    return PUBLIC_LAYOUTS[layout](root, *public_classes(layout, root), splits), layout


def _own_classes(root: Path, layout: str) -> tuple[Taxonomy, MaskEncoding] | None:
    if (root / "classes.toml").exists():
        return read_classes(root / "classes.toml")
    path = find_class_file(root) if layout == "voc" else None
    return read_class_file(path) if path else None


def _matching(root: Path) -> list[str]:
    return [layout for layout, marks in MARKS.items() if any((root / mark).exists() for mark in marks)]


def _coco_annotations(root: Path) -> Path | None:
    """Annotations as CVAT, Datumaro, Roboflow and others write them."""
    patterns = ("annotations/*.json", "*/_annotations.coco.json", "*.json")
    files = (path for pattern in patterns for path in sorted(root.glob(pattern)))
    return next((path for path in islice(files, MAX_JSON_FILES) if _is_coco(path)), None)


def _is_coco(path: Path) -> bool:
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(table, dict) and {"images", "annotations", "categories"} <= table.keys()


def _detect(root: Path) -> str:
    if matching := _matching(root):
        return matching[0]
    expected = ", ".join(f"{' or '.join(marks)} ({layout})" for layout, marks in MARKS.items())
    below = [path for path in sorted(root.glob("*/")) if path.is_dir() and _matching(path)]
    remedy = f"use {below[0]}, which is a data set" if below else "give the folder of a data set, or add a classes.toml"
    if found := _coco_annotations(root):
        form = "panoptic" if found.name.startswith("panoptic") else "instances"
        remedy = (
            f"{found.relative_to(root)} has COCO's format: rename it to annotations/{form}_train2017.json and the "
            "folder of its images to train2017 (those for validation: val2017), and run "
            f"python -m trainer prepare-coco {shlex.quote(str(root))} --from {form}"
        )
    raise DatasetError(f"{root}: not a known data set, found none of {expected}; {remedy}")
