"""Read annotation files in COCO's format, and check that each annotation belongs to an image and can be drawn."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from trainer.counted import counted
from trainer.data.coco.coco_regions import RegionError, Shape, check_region
from trainer.data.dataset import DatasetError

MAX_NAMED = 20
"""Faults of one kind that a message names."""
SINGULAR = {"have": "has", "match": "matches"}
"""Verbs of the faults, for one entry."""
OTHER_TYPE = "an id is text in one list and a number in the other; write it in the same way"
UNKNOWN_IMAGE = "image_id must be the id of an image; add the images, or remove the annotations"

Table = dict[str, Any]
Faults = dict[tuple[str, str], list[str]]
"""Names of the faulty entries by (fault, remedy)."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image of the file: its name without folder and extension, its size in pixels, and its annotations."""

    stem: str
    shape: Shape
    annotations: list[Table] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """The contents of an annotation file.

    Attributes:
        categories: tables of the file's categories, by their ids, in the order of the ids.
        used: ids of the categories that occur in annotations.
    """

    path: Path
    images: tuple[AnnotatedImage, ...]
    categories: Mapping[int, Table]
    used: frozenset[int]


CategoryIds = Callable[[Table, AnnotatedImage], list[int]]
"""Ids of the categories of an annotation. Raises RegionError if it cannot be drawn."""


def read_regions(path: Path) -> AnnotationFile | None:
    """Read annotations with polygons or run lengths; None if there is no file. Raises DatasetError with all faults."""

    def category(annotation: Table, image: AnnotatedImage) -> list[int]:
        check_region(annotation.get("segmentation"), image.shape)
        return [annotation.get("category_id", -1)]

    return _read(path, category)


def read_panoptic(path: Path) -> AnnotationFile | None:
    """Read annotations whose segments are in PNGs; None if there is no file. Raises DatasetError with all faults."""

    def categories(annotation: Table, _image: AnnotatedImage) -> list[int]:
        segments = annotation.get("segments_info")
        if not isinstance(annotation.get("file_name"), str) or not _are_tables(segments):
            raise RegionError("has no file_name or no list segments_info")
        if not all(type(segment.get("id")) is int for segment in segments):
            raise RegionError("has a segment without an id")
        return [segment.get("category_id", -1) for segment in segments]

    return _read(path, categories)


def _read(path: Path, category_ids: CategoryIds) -> AnnotationFile | None:
    if not path.exists():
        return None
    table = _read_json(path)
    images = _images(path, table["images"])
    categories = _categories(path, table["categories"])
    faults: Faults = defaultdict(list)
    used: set[int] = set()
    texts = set(map(str, images))
    for index, annotation in enumerate(table["annotations"]):
        name, image_id = f"annotation {annotation.get('id', f'number {index}')}", annotation.get("image_id")
        image = images.get(image_id) if isinstance(image_id, int | str) else None
        if image is None:
            remedy = OTHER_TYPE if str(image_id) in texts else UNKNOWN_IMAGE
            faults["match no image", remedy].append(f"{name} (image_id {image_id!r})")
            continue
        try:
            ids = category_ids(annotation, image)
            _check_listed(ids, categories)
        except RegionError as error:
            faults["cannot be drawn", "correct or remove them"].append(f"{name} of {image.stem} {error}")
            continue
        used.update(ids)
        image.annotations.append(annotation)
    _raise(path, "annotation", "annotations", faults)
    return AnnotationFile(path, tuple(images.values()), categories, frozenset(used))


def _check_listed(ids: list[Any], categories: Mapping[int, Table]) -> None:
    for each in ids:
        if type(each) is not int or each not in categories:
            raise RegionError(f"has the category {each!r}, which the file does not list")


def _images(path: Path, tables: list[Table]) -> dict[int | str, AnnotatedImage]:
    images: dict[int | str, AnnotatedImage] = {}
    faults: Faults = defaultdict(list)
    for index, table in enumerate(tables):
        key, file_name = table.get("id"), table.get("file_name")
        height, width = table.get("height"), table.get("width")
        if not isinstance(key, int | str) or not isinstance(file_name, str):
            faults["have no id or no file_name", "add them"].append(f"image number {index}")
        elif not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
            faults["have no height and width in pixels", "add them"].append(file_name)
        elif key in images:
            faults["have the id of another image", "number them anew"].append(f"{file_name} (id {key!r})")
        else:
            # Tools on Windows write backslashes.
            images[key] = AnnotatedImage(PurePosixPath(file_name.replace("\\", "/")).stem, (height, width))
    _raise(path, "image", "images", faults)
    return images


def _categories(path: Path, tables: list[Table]) -> dict[int, Table]:
    faults: Faults = defaultdict(list)
    for index, table in enumerate(tables):
        if type(table.get("id")) is not int or not (isinstance(table.get("name"), str) and table["name"]):
            faults["have no number as id, or no name", "add them"].append(f"category number {index}")
    repeated = Counter(table.get("id") for table in tables if not faults)
    if twice := [f"id {key}" for key, count in repeated.items() if count > 1]:
        faults["have the same id", "number them anew"] = twice
    _raise(path, "category", "categories", faults)
    return {table["id"]: table for table in sorted(tables, key=lambda table: int(table["id"]))}


def _read_json(path: Path) -> Table:
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); unpack it again") from error
    for name in ("images", "annotations", "categories"):
        if not isinstance(table, dict) or not _are_tables(table.get(name)):
            raise DatasetError(f"{path}: has no {name} (a list of objects); export it again in COCO's format")
    return dict(table)


def _are_tables(value: Any) -> TypeGuard[list[Table]]:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _raise(path: Path, one: str, many: str, faults: Faults) -> None:
    parts = []
    for (fault, remedy), names in faults.items():
        more = f", and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        verb, _, rest = fault.partition(" ")
        subject = counted(len(names), f"{one} {SINGULAR.get(verb, verb)}", f"{many} {verb}")
        parts.append(f"{subject} {rest}: {', '.join(names[:MAX_NAMED])}{more}; {remedy}")
    if parts:
        raise DatasetError(f"{path}: " + "\n".join(parts))
