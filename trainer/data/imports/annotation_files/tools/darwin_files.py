"""V7 Darwin JSON 2.0: polygons, boxes, and masks in a raster layer.

Points are those of pixel centres, as V7's own library draws them: the outline of each path belongs to the region.
"""

# H W pixels

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from trainer.data.imports.annotation_files.checked_values import (
    ContentError,
    Table,
    number,
    read_json,
    run_lengths,
    size_of,
    table,
    tables,
    text,
)
from trainer.data.imports.annotation_files.found_images import FoundImage, imported, read_files
from trainer.data.imports.annotation_files.found_regions import FoundRegion, report_shape
from trainer.data.imports.annotation_files.json_keys import files_with
from trainer.data.imports.drawing.rasterise import Bitmap, Pixels, Rectangle, Shape, ShapeError
from trainer.data.imports.drawing.run_lengths import row_run_lengths
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.source.annotated import Imported, Size
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_folder import SourceFolder

WITHOUT_AREA = {"tag", "line", "keypoint", "skeleton", "link", "string", "graph", "directional_vector"}
OTHER_KEYS = {"id", "name", "slot_names", "properties", "bounding_box", "annotators", "reviewers", "ranges"}
"""Of an annotation, besides the one that is called like its type."""
RASTER, MASK, POLYGON, BOX = "raster_layer", "mask", "polygon", "bounding_box"
NO_LAYER = "a mask is in no raster layer and is left out"
Path = Sequence[tuple[float, float]]


def find(source: SourceFolder) -> str | None:
    """See KnownFormat."""
    files = _files(source)
    return f"{len(files)} Darwin JSON file{'s' if len(files) > 1 else ''}" if files else None


def read(source: SourceFolder, _options: ImportOptions, losses: Losses) -> Imported:
    """See KnownFormat."""
    found = read_files(source, _files(source), lambda file: _image(source, file, losses), losses)
    return imported(source, found, (), losses)


def _files(source: SourceFolder) -> list[str]:
    return files_with(source, lambda keys: {"{", "item", "slots", "annotations"} <= keys)


def _image(source: SourceFolder, file: str, losses: Losses) -> FoundImage:
    content = table(read_json(source.path(file)), "Darwin annotation")
    item = table(content.get("item"), "item")
    slots = tables(item.get("slots"), "slots") or [{}]
    path = f"{str(item.get('path') or '').rstrip('/')}/{text(item.get('name'), 'name of its item')}"
    annotations = tables(content.get("annotations"), "annotations")
    return FoundImage(
        file=file,
        spellings=[path, *_source_names(slots[0])],
        regions=_regions(annotations, file, losses),
        size=size_of(slots[0].get("width"), slots[0].get("height")),
    )


def _source_names(slot: Table) -> list[str]:
    files = slot.get("source_files")
    named = [each.get("file_name") for each in files if isinstance(each, dict)] if isinstance(files, list) else []
    return [name for name in named if isinstance(name, str) and name]


def _regions(annotations: Sequence[Table], file: str, losses: Losses) -> list[FoundRegion]:
    layers = [table(each[RASTER], RASTER) for each in annotations if RASTER in each]
    regions = []
    for index, each in enumerate(annotations, 1):
        kind, label = _kind(each), text(each.get("name"), f"name of annotation {index}")
        name = f"{label} {index}"
        if kind == POLYGON:
            regions.append(FoundRegion(label, name, partial(_polygon, table(each[POLYGON], POLYGON))))
        elif kind == BOX:
            regions.append(FoundRegion(label, name, partial(_box, table(each[BOX], BOX))))
        elif kind == MASK:
            values = [value for layer in layers if (value := _value(layer, each.get("id"))) is not None]
            if not values:
                losses.add("unusable region", NO_LAYER, f"{file}: {name}", remedy="export it again")
            regions += [FoundRegion(label, name, partial(_raster, *value)) for value in values]
        elif kind != RASTER:
            report_shape(kind, f"{file}: {name}", losses, known=kind in WITHOUT_AREA)
    return regions


def _kind(annotation: Table) -> str:
    for kind in (RASTER, MASK, POLYGON):
        if kind in annotation:
            return kind
    others = [key for key in annotation if key not in OTHER_KEYS]
    return BOX if not others and BOX in annotation else str((others or ["nothing"])[0])


def _polygon(polygon: Table, size: Size) -> Shape:
    """Paths, of which those within others are holes (the even-odd rule)."""
    paths = polygon.get("paths")
    if not isinstance(paths, list) or not paths:
        raise ContentError("has no paths (a list of lists of points)")
    inside_HW = np.zeros(size, dtype=np.bool_)
    outlines_HW = np.zeros(size, dtype=np.bool_)
    for path in paths:
        corners = [(number(each.get("x"), "x"), number(each.get("y"), "y")) for each in tables(path, "paths")]
        if len(corners) < 3:
            raise ShapeError(f"has a path of {len(corners)} points; a polygon has three or more")
        inside_HW ^= _drawn(corners, size, fill=1)
        outlines_HW |= _drawn(corners, size, fill=0)
    return Bitmap(inside_HW | outlines_HW)


def _drawn(corners: Path, size: Size, *, fill: int) -> Pixels:
    canvas = Image.new("1", size[::-1])
    ImageDraw.Draw(canvas).polygon(list(corners), fill=fill, outline=1)
    return np.array(canvas, dtype=np.bool_)


def _box(box: Table, _size: Size) -> Shape:
    left, top, width, height = (number(box.get(key), f"{key} of its box") for key in "xywh")
    return Rectangle((left, top), (left + width, top + height))


def _value(layer: Table, key: Any) -> tuple[Table, int] | None:
    """The layer and the value of a mask in it."""
    value = table(layer.get("mask_annotation_ids_mapping"), "mask_annotation_ids_mapping").get(str(key))
    return (layer, value) if type(value) is int else None


def _raster(layer: Table, value: int, size: Size) -> Shape:
    """Pixels of one value in a layer: value, count, value, count, ..., row by row."""
    numbers = run_lengths(layer.get("dense_rle") or [])
    if len(numbers) % 2:
        raise ShapeError("has an odd number of values and counts in its raster layer")
    runs = [0]
    for stored, count in zip(numbers[::2], numbers[1::2], strict=True):
        # Runs alternate, background first.
        if (stored == value) == (len(runs) % 2 == 0):
            runs[-1] += count
        else:
            runs.append(count)
    return row_run_lengths(runs, 0, 0, size[1], size[0])


DARWIN = KnownFormat(
    name="darwin",
    title="V7 Darwin JSON",
    looked_for="JSON files with item, slots and annotations",
    find=find,
    read=read,
)
