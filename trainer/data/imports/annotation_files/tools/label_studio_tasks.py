"""Label Studio's JSON and JSON_MIN: brushes, polygons, rectangles and ellipses, in percent of the image."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Literal

from trainer.data.imports.annotation_files.checked_values import (
    ContentError,
    Table,
    number,
    points,
    read_json,
    size_of,
    table,
    tables,
)
from trainer.data.imports.annotation_files.found_images import FoundImage, check_readable, imported, report_unreadable
from trainer.data.imports.annotation_files.found_regions import FoundRegion, report_shape
from trainer.data.imports.annotation_files.image_spellings import image_spellings
from trainer.data.imports.annotation_files.json_keys import Keys, files_with
from trainer.data.imports.annotation_files.tools.brush_stream import brush_mask
from trainer.data.imports.drawing.rasterise import Ellipse, Polygon, Shape, rotated_rectangle
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.source.annotated import SPLITS, Imported, Size, Split
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_error import SourceError
from trainer.data.imports.source.source_folder import SourceFolder
from trainer.data.readers.directory_listing import SUFFIXES

BRUSH_PNG = re.compile(r"task-\d+-annotation-\d+-by-.*\.(png|npy)$")
"""Files of the export "Brush labels to PNG"."""
NO_TASKS = "the PNGs of brushes do not say which images they belong to; export JSON too, and put the file beside them"
NO_IMAGE = "a task names no image and is not imported"
SEVERAL = "a task has several annotations; the ground truth is used, or else the newest"
PREDICTIONS = "a task has only predictions, which are not labels"
SKIPPED = "the annotators skipped a task"
MANY_LABELS = "a region has several labels; the first is used"
NO_LABEL = "a region has no label and is left out"
ROTATED = "a region was drawn on a picture that was rotated in the tool and is left out"
NOT_REGIONS = {"choices", "textarea", "number", "rating", "taxonomy", "datetime", "relation", "pairwise", "ranker"}
WITHOUT_AREA = {"keypoint", "vector"}


def find(source: SourceFolder) -> str | None:
    """See KnownFormat."""
    if files := _files(source):
        return f"tasks of Label Studio in {', '.join(files[:3])}"
    pngs = _brush_pngs(source)
    return f"{len(pngs)} PNGs of Label Studio's brushes, without the tasks" if pngs else None


def read(source: SourceFolder, _options: ImportOptions, losses: Losses) -> Imported:
    """See KnownFormat."""
    pngs, files = _brush_pngs(source), _files(source)
    if pngs and not files:
        raise SourceError(f"{source.title}: {NO_TASKS}")
    found: list[FoundImage] = []
    for file in files:
        try:
            content = read_json(source.path(file))
            for task in tables(content if isinstance(content, list) else [content], "tasks"):
                found += _images(source, file, task, losses)
        except ContentError as problem:
            report_unreadable(file, problem, losses)
    check_readable(source, found, losses)
    # The JSON has everything that the PNGs of brushes have.
    source.used |= dict.fromkeys(pngs, "repeats a brush of the JSON")
    photographs = [file for file in source.images() if file not in source.used]
    return imported(source, _newest_records(found, losses), (), losses, photographs)


def _brush_pngs(source: SourceFolder) -> list[str]:
    return [file for file in source.images() if BRUSH_PNG.fullmatch(PurePosixPath(file).name)]


def _files(source: SourceFolder) -> list[str]:
    def fits(keys: Keys) -> bool:
        full = "annotations" in keys and keys & {"completed_by", "predictions", "result", "drafts"}
        return bool(full and keys & {"data", "result"}) or keys >= {"[", "annotation_id", "lead_time"}

    return files_with(source, fits)


def _images(source: SourceFolder, file: str, task: Table, losses: Losses) -> list[FoundImage]:
    """The image of a task, or of a record of JSON_MIN, with the regions of the annotation that counts."""
    name = f"{file}: task {task.get('id', '?')}"
    if "annotation_id" in task:
        results = [_record_result(key, each) for key, value in task.items() for each in _regions_of(value)]
        data: Mapping[str, Any] = task
    else:
        data = table(task.get("data"), "data")
        results = tables(_chosen(task, name, losses).get("result") or [], "result")
    spellings = _spellings(source, file, data)
    if not spellings:
        losses.add("annotation without image", NO_IMAGE, name, remedy="export tasks with one image each")
        return []
    regions = list(_regions(results, name, losses))
    sizes = [size_of(each.get("original_width"), each.get("original_height")) for each in results]
    size = next((each for each in sizes if each), None)
    # As `export-labels` writes it.
    split: Split | Literal[""] = SPLITS.get(str(data.get("split")).casefold()) or ""
    return [FoundImage(file=file, spellings=spellings, regions=regions, size=size, split=split)]


def _newest_records(found: Sequence[FoundImage], losses: Losses) -> list[FoundImage]:
    """JSON_MIN has a record for each annotation of a task, the newest first: the first is used."""
    kept: dict[tuple[str, str], FoundImage] = {}
    for each in found:
        key = (each.file, each.spellings[0])
        if key in kept:
            losses.add("several annotations", SEVERAL, f"{each.file}: {each.spellings[0]}")
        kept.setdefault(key, each)
    return list(kept.values())


def _regions_of(value: Any) -> list[Table]:
    """Regions in a value of a JSON_MIN record."""
    listed = value if isinstance(value, list) else []
    return [each for each in listed if isinstance(each, dict) and "original_width" in each]


def _record_result(key: str, region: Table) -> Table:
    """A region of JSON_MIN in the form of the full export."""
    sizes = {name: region.get(name) for name in ("original_width", "original_height")}
    return {**sizes, "value": region, "from_name": key, "type": _shape_kind(region)}


def _chosen(task: Table, name: str, losses: Losses) -> Table:
    """The annotation that counts: not cancelled; the ground truth, else the newest."""
    listed = task.get("annotations", task.get("completions"))
    annotations = tables([] if listed is None else listed, "annotations")
    kept = [each for each in annotations if not (each.get("was_cancelled") or each.get("skipped"))]
    if not kept:
        if annotations:
            losses.add("skipped task", SKIPPED, name)
        elif task.get("predictions"):
            losses.add("only predictions", PREDICTIONS, name, remedy="accept them in Label Studio")
        return {}
    if len(kept) > 1:
        losses.add("several annotations", SEVERAL, name)
    order = [(bool(each.get("ground_truth")), str(each.get("updated_at") or each.get("created_at"))) for each in kept]
    return kept[max(range(len(kept)), key=order.__getitem__)]


def _spellings(source: SourceFolder, file: str, data: Mapping[str, Any]) -> list[str]:
    """Those of the value that is an image: the first that the source has, else the first with the suffix of one."""
    candidates = [image_spellings(value) for value in data.values() if isinstance(value, str) and value]
    for spellings in candidates:
        if any((found := source.match(each, file)) and found.lower().endswith(SUFFIXES) for each in spellings):
            return spellings
    return next((each for each in candidates if any(one.lower().endswith(SUFFIXES) for one in each)), [])


def _regions(results: Sequence[Table], name: str, losses: Losses) -> Iterator[FoundRegion]:
    labelled = {str(each.get("id")) for each in results if _labels(each)}
    for index, each in enumerate(results, 1):
        value = each.get("value")
        if not isinstance(value, dict) or str(each.get("type")) in NOT_REGIONS:
            continue
        kind, labels, example = _shape_kind(value), _labels(each), f"{name}: region {index}"
        if not labels:
            # A shape and its label can be two results with one id.
            if each.get("id") is None or str(each.get("id")) not in labelled:
                losses.add("no label", NO_LABEL, example, remedy="give it a label in Label Studio")
            continue
        if len(labels) > 1:
            losses.add("several labels", MANY_LABELS, f"{example}: {', '.join(labels)}")
        if kind not in BUILDERS:
            report_shape(kind, example, losses, known=kind in WITHOUT_AREA)
        elif each.get("image_rotation"):
            losses.add("rotated image", ROTATED, example, remedy="rotate the image file, and draw it again")
        else:
            yield FoundRegion(labels[0], f"{labels[0]} {index}", partial(BUILDERS[kind], value))


def _labels(result: Table) -> list[str]:
    value = result.get("value")
    if not isinstance(value, dict):
        return []
    listed = [each for key, each in value.items() if key.endswith("labels") and isinstance(each, list)]
    return [label for each in listed for label in each if isinstance(label, str) and label]


def _shape_kind(value: Table) -> str:
    """What a value describes, by its keys: the type in the file is that of the tag."""
    for key, kind in (("rle", "brush"), ("points", "polygon"), ("radiusX", "ellipse"), ("imageDataURL", "bitmask")):
        if key in value:
            return kind
    if "vertices" in value:
        return "vector"
    return "rectangle" if {"x", "y", "width", "height"} <= value.keys() and value["height"] else "keypoint"


def _brush(value: Table, size: Size) -> Shape:
    rle = value.get("rle")
    if not isinstance(rle, list) or not all(type(byte) is int and 0 <= byte <= 255 for byte in rle):
        raise ContentError("has no rle (a list of bytes)")
    return brush_mask(bytes(rle), size)


def _polygon(value: Table, size: Size) -> Shape:
    height, width = size
    return Polygon([(x / 100 * width, y / 100 * height) for x, y in points(value.get("points"))])


def _rectangle(value: Table, size: Size) -> Shape:
    height, width = size
    x, y, wide, high = (number(value.get(key), key) / 100 for key in ("x", "y", "width", "height"))
    return rotated_rectangle(x * width, y * height, wide * width, high * height, _degrees(value))


def _ellipse(value: Table, size: Size) -> Shape:
    height, width = size
    x, y, rx, ry = (number(value.get(key), key) / 100 for key in ("x", "y", "radiusX", "radiusY"))
    return Ellipse((x * width, y * height), (rx * width, ry * height), _degrees(value))


def _degrees(value: Table) -> float:
    return number(value.get("rotation") or 0, "rotation")


BUILDERS: dict[str, Any] = {"brush": _brush, "polygon": _polygon, "rectangle": _rectangle, "ellipse": _ellipse}

LABEL_STUDIO = KnownFormat(
    name="label-studio",
    title="Label Studio",
    looked_for="JSON files with tasks and their annotations (export as JSON or JSON_MIN)",
    find=find,
    read=read,
)
