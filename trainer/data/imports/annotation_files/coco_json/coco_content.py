"""The content of an annotation file in COCO's format: what does not fit together is reported and left out."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.data.imports.annotation_files.checked_values import (
    ContentError,
    Table,
    is_number,
    read_json,
    size_of,
    table,
    tables,
)
from trainer.data.imports.source.annotated import Size
from trainer.data.imports.source.loss_report import Losses

FOREIGN_IMAGE = "an annotation belongs to an image that the file does not list; it is left out"
OTHER_TYPE = "an annotation's image_id is text where the image's id is a number, or the other way round; it is left out"
FOREIGN_CATEGORY = "an annotation has a category that the file does not list; it is left out"
BAD_CATEGORY = "a category has no id or no name, or the id of another; it is left out"
BAD_IMAGE = "an image has no id or no file_name, or the id of another; it is left out"


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image of the file with its annotations, in the file's order."""

    file_name: str
    size: Size | None
    annotations: list[Table] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CocoContent:
    """An annotation file.

    Attributes:
        images: in the file's order.
        categories: name by id, in the order of the ids.
        groups: names of super-categories.
        panoptic: whether the segments are in PNG files.
    """

    file: str
    images: Sequence[CocoImage]
    categories: Mapping[int, str]
    groups: frozenset[str]
    panoptic: bool

    @property
    def has_regions(self) -> bool:
        """Whether any annotation has a segmentation: captions, boxes and key points have none."""
        return any(each.get("segmentation") for image in self.images for each in image.annotations)

    @property
    def is_empty(self) -> bool:
        """Whether there is no annotation at all."""
        return not any(image.annotations for image in self.images)


def read_content(path: Path, file: str, losses: Losses) -> CocoContent:
    """Read a file. Raises ContentError if it is not JSON, or lacks one of the three lists."""
    content = table(read_json(path), "object with images, annotations and categories")
    images = _images(tables(content.get("images"), "images"), file, losses)
    listed = tables(content.get("categories"), "categories")
    categories = _categories(listed, file, losses)
    annotations = tables(content.get("annotations"), "annotations")
    texts = set(map(str, images))
    for index, each in enumerate(annotations, 1):
        key, name = each.get("image_id"), f"{file}: annotation {each.get('id', f'number {index}')}"
        if isinstance(key, int | str) and key in images:
            images[key].annotations.append(each)
        else:
            message = OTHER_TYPE if str(key) in texts else FOREIGN_IMAGE
            losses.add("foreign id", message, f"{name} (image_id {key!r})", remedy="export the file again")
    # Some tools repeat a category's own name there.
    groups = frozenset(
        group for each in listed if isinstance(group := each.get("supercategory"), str) and group != each.get("name")
    )
    panoptic = any("segments_info" in each for each in annotations)
    return CocoContent(file, tuple(images.values()), categories, groups, panoptic)


def known_category(annotation: Table, content: CocoContent, losses: Losses) -> str | None:
    """The name of an annotation's category; None if it has none, which is reported."""
    key = annotation.get("category_id")
    if type(key) is int and key in content.categories:
        return content.categories[key]
    example = f"{content.file}: annotation {annotation.get('id', '?')} (category_id {key!r})"
    losses.add("foreign id", FOREIGN_CATEGORY, example, remedy="export the file again")
    return None


def used_names(contents: Sequence[CocoContent]) -> set[str]:
    """Names of the categories that annotations or segments have."""
    keys: dict[str, set[Any]] = defaultdict(set)
    for content in contents:
        for image in content.images:
            for each in image.annotations:
                parts = each["segments_info"] if isinstance(each.get("segments_info"), list) else [each]
                keys[content.file] |= {
                    key for part in parts if isinstance(part, dict) and type(key := part.get("category_id")) is int
                }
    return {name for content in contents for key, name in content.categories.items() if key in keys[content.file]}


def stated_area(annotation: Table) -> float | None:
    """The area of an annotation in pixels, if the file has one."""
    area = annotation.get("area")
    return float(area) if is_number(area) and area > 0 else None


def _images(listed: Sequence[Table], file: str, losses: Losses) -> dict[int | str, CocoImage]:
    images: dict[int | str, CocoImage] = {}
    for index, each in enumerate(listed, 1):
        key, name = each.get("id"), each.get("file_name")
        if not isinstance(key, int | str) or key in images or not isinstance(name, str) or not name:
            losses.add("missing key", BAD_IMAGE, f"{file}: image {name or f'number {index}'} (id {key!r})")
            continue
        images[key] = CocoImage(name, size_of(each.get("width"), each.get("height")))
    if listed and not images:
        raise ContentError("has no image with id and file_name")
    return images


def _categories(listed: Sequence[Table], file: str, losses: Losses) -> dict[int, str]:
    categories: dict[int, str] = {}
    for index, each in enumerate(listed, 1):
        key, name = each.get("id"), each.get("name")
        if type(key) is not int or key in categories or not isinstance(name, str) or not name:
            losses.add("missing key", BAD_CATEGORY, f"{file}: category {name or f'number {index}'} (id {key!r})")
            continue
        categories[key] = name
    return dict(sorted(categories.items()))
