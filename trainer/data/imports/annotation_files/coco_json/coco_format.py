"""COCO's format with any categories, in any place: of COCO, Roboflow, datumaro, CVAT, Label Studio, supervision, ...

Polygons are continuous, unless the areas in the file are those of polygons through pixel centres (OpenCV, supervision).
The format has no drawing order: smaller regions are drawn over larger ones, as prepare-coco does.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, TypeGuard

from trainer.data.imports.annotation_files.checked_values import ContentError, Table, number
from trainer.data.imports.annotation_files.coco_json.coco_content import (
    CocoContent,
    CocoImage,
    known_category,
    read_content,
    stated_area,
    used_names,
)
from trainer.data.imports.annotation_files.coco_json.coco_panoptic import PanopticLabel
from trainer.data.imports.annotation_files.found_images import (
    FoundImage,
    check_readable,
    imported,
    report_unreadable,
    split_of,
)
from trainer.data.imports.annotation_files.found_regions import FoundRegion
from trainer.data.imports.annotation_files.image_spellings import image_spellings
from trainer.data.imports.annotation_files.json_keys import Keys, files_with
from trainer.data.imports.drawing.rasterise import Polygon, Shape, ShapeError, Union, shape_pixels
from trainer.data.imports.drawing.run_lengths import coco_run_lengths
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.source.annotated import Imported, Size, SourceClass
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_folder import SourceFolder

LISTS = {"images", "annotations", "categories"}
PARTS = {"category_id", "image_id", "supercategory", "segmentation", "segments_info"}
LABEL_PNG = re.compile(r"_label_[\w-]+\.png$")
"""Labels of Segments.ai, beside the photographs."""
MAX_MEASURED = 1 << 26
"""Pixels of an image in which areas are computed before the image itself is opened."""
COMPARED = 20
"""Polygons whose areas decide whether they run through pixel centres."""

SMALLER_WINS = "regions of different classes overlap; COCO has no drawing order, so the smaller one wins"
NO_REGIONS = "a file has no segmentations (captions, boxes or key points only) and is not used"
NO_SEGMENTATION = "an annotation has no segmentation, only a box, and is left out"
BOXES_REMEDY = "export polygons or masks"
CENTRES = "polygons run through pixel centres, as the areas in the file say; their outlines belong to them"
GROUP = "a category without annotations is only the group of others; it is no class"
NO_PNG = "the PNG of an image's segments is not in the source; the image is imported without a label"
BOTH_FORMS = "a file has the panoptic form of annotations that others have as regions; it is not used"


def find(source: SourceFolder) -> str | None:
    """See KnownFormat."""
    files = _files(source)
    return f"COCO's format in {', '.join(files[:3])}" + (" and others" if len(files) > 3 else "") if files else None


def read(source: SourceFolder, _options: ImportOptions, losses: Losses) -> Imported:
    """See KnownFormat."""
    contents = []
    for file in _files(source):
        try:
            contents.append(read_content(source.path(file), file, losses))
        except ContentError as problem:
            report_unreadable(file, problem, losses)
    check_readable(source, [FoundImage(file=each.file, spellings=()) for each in contents], losses)
    contents = _usable(contents, losses)
    classes = _classes(contents, losses)
    found: list[FoundImage] = []
    pngs: set[str] = set()
    for content in contents:
        if content.panoptic:
            found += _panoptic(source, content, classes, pngs, losses)
        else:
            found += _regions(content, losses)
    # A PNG of segments can have the name of its image.
    photographs = [file for file in source.images() if file not in pngs and not LABEL_PNG.search(file)]
    return imported(source, found, classes, losses, photographs)


def _files(source: SourceFolder) -> list[str]:
    def fits(keys: Keys) -> bool:
        lists = len(keys & LISTS)
        return keys & {"{", "shapes", "item", "samples"} == {"{"} and (lists > 1 or bool(lists and keys & PARTS))

    return files_with(source, fits)


def _usable(contents: Sequence[CocoContent], losses: Losses) -> list[CocoContent]:
    """The files with regions, if any has some: of panoptic and of plain files, the plain ones."""
    regions = [each for each in contents if (each.has_regions or each.is_empty) and not each.panoptic]
    used = regions or [each for each in contents if each.panoptic] or list(contents)
    for each in contents:
        if each not in used:
            losses.add("file not used", BOTH_FORMS if each.panoptic else NO_REGIONS, each.file)
    return used


def _classes(contents: Sequence[CocoContent], losses: Losses) -> list[SourceClass]:
    """Categories in the order of their ids, then of the files, without unused groups (Roboflow's first category)."""
    used = used_names(contents)
    groups = frozenset().union(*(each.groups for each in contents))
    names: dict[str, None] = {}
    for content in contents:
        for name in content.categories.values():
            if name in used or name not in groups:
                names.setdefault(name)
            else:
                losses.add("group", GROUP, f"{content.file}: {name}")
    return [SourceClass(name) for name in names]


def _spelled(file: str, image: CocoImage) -> FoundImage:
    size, spellings = image.size, image_spellings(image.file_name)
    return FoundImage(file=file, spellings=spellings, size=size, split=split_of(file, image.file_name))


def _regions(content: CocoContent, losses: Losses) -> list[FoundImage]:
    centres = _through_centres(content)
    if centres:
        losses.add("pixel centres", CENTRES, content.file)
    found = []
    for image in content.images:
        drawn = [region for each in image.annotations if (region := _region(each, content, centres, losses))]
        # sorted is stable: equal ones keep the file's order.
        ordered = [region for _, region in sorted(drawn, key=lambda pair: -_area(pair[0], pair[1], image))]
        found.append(replace(_spelled(content.file, image), regions=ordered, overlap=SMALLER_WINS))
    return found


def _region(annotation: Table, content: CocoContent, centres: bool, losses: Losses) -> tuple[Table, FoundRegion] | None:
    category = known_category(annotation, content, losses)
    if category is None:
        return None
    name = f"{category} {annotation.get('id', '?')}"
    if not annotation.get("segmentation"):
        losses.add("no segmentation", NO_SEGMENTATION, f"{content.file}: {name}", remedy=BOXES_REMEDY)
        return None
    build = partial(_shape, annotation["segmentation"], centres)
    return annotation, FoundRegion(category, name, build)


def _shape(segmentation: Any, centres: bool, size: Size) -> Shape:
    if isinstance(segmentation, dict):
        return coco_run_lengths(segmentation, size)
    return Union([Polygon(points, pixel_centres=centres) for points in _polygons(segmentation)])


def _polygons(segmentation: Any) -> Iterable[list[tuple[float, float]]]:
    if not isinstance(segmentation, list):
        raise ContentError("has a segmentation that is neither a list of polygons nor run lengths")
    # Some tools leave out the outer list.
    listed = segmentation if isinstance(segmentation[0], list) else [segmentation]
    for polygon in listed:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            count = len(polygon) if isinstance(polygon, list) else 0
            raise ContentError(f"has a polygon of {count} numbers; three points or more are 6, 8, ... numbers")
        numbers = [number(each, "numbers as coordinates") for each in polygon]
        yield list(zip(numbers[::2], numbers[1::2], strict=True))


def _area(annotation: Table, region: FoundRegion, image: CocoImage) -> float:
    """Of the file, else of the region's pixels; a region that cannot be drawn is reported later."""
    area = stated_area(annotation)
    if area is not None or not _is_measured(image.size):
        return area or 0.0
    try:
        return float(shape_pixels(region.build(image.size), image.size).sum())
    except (ShapeError, ContentError):
        return 0.0


def _is_measured(size: Size | None) -> TypeGuard[Size]:
    """Whether areas are computed: a file can state any size."""
    return size is not None and size[0] * size[1] <= MAX_MEASURED


def _through_centres(content: CocoContent) -> bool:
    """Whether the stated areas fit polygons through pixel centres far better than continuous ones."""
    continuous = centred = 0.0
    for area, segmentation, size in islice(_with_areas(content), COMPARED):
        try:
            areas = [float(shape_pixels(_shape(segmentation, way, size), size).sum()) for way in (False, True)]
        except (ShapeError, ContentError):
            continue
        continuous += abs(areas[0] - area)
        centred += abs(areas[1] - area)
    return centred < continuous / 2


def _with_areas(content: CocoContent) -> Iterator[tuple[float, list[Any], Size]]:
    """Area, polygons and image size of the annotations that have all three."""
    for image in content.images:
        for each in image.annotations:
            area, polygons = stated_area(each), each.get("segmentation")
            if area is not None and _is_measured(image.size) and isinstance(polygons, list) and polygons:
                yield area, polygons, image.size


def _panoptic(
    source: SourceFolder, content: CocoContent, classes: Sequence[SourceClass], pngs: set[str], losses: Losses
) -> list[FoundImage]:
    """Images whose segments are in PNGs; adds these to `pngs`."""
    ids = {each.name: index for index, each in enumerate(classes)}
    folder = PurePosixPath(content.file).with_suffix("").name
    found = []
    for image in content.images:
        described = _spelled(content.file, image)
        for annotation in image.annotations:
            name, segments = annotation.get("file_name"), annotation.get("segments_info")
            png = source.match(f"{folder}/{name}", content.file) if isinstance(name, str) else None
            if png is None or not isinstance(segments, list):
                losses.add("missing PNG", NO_PNG, f"{content.file}: {name}", remedy="add the folder of PNGs")
                continue
            pngs.add(png)
            by_segment = {
                each["id"]: ids[category]
                for each in segments
                if isinstance(each, dict)
                and type(each.get("id")) is int
                and (category := known_category(each, content, losses))
            }
            label = PanopticLabel(source.path(png), png, by_segment)
            described = replace(described, label=label, label_files=[png])
        found.append(described)
    return found


COCO = KnownFormat(
    name="coco",
    title="COCO's format",
    looked_for="JSON files with images, annotations and categories",
    find=find,
    read=read,
)
