"""Supervisely: a project of data sets, meta.json and DATASET/{img/NAME, ann/NAME.json}.

Points are those of pixel centres, and the outline belongs to a shape (OpenCV's fillPoly); holes are cut with theirs.
"""

import zlib
from functools import partial
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from trainer.data.imports.annotation_files.checked_values import (
    ContentError,
    Table,
    decoded,
    points,
    read_json,
    size_of,
    table,
    tables,
    text,
)
from trainer.data.imports.annotation_files.found_images import (
    UNREADABLE_KIND,
    FoundImage,
    imported,
    read_files,
    split_of,
)
from trainer.data.imports.annotation_files.found_regions import FoundRegion, report_shape
from trainer.data.imports.annotation_files.hex_colors import hex_color
from trainer.data.imports.annotation_files.json_keys import files_with
from trainer.data.imports.drawing.rasterise import Bitmap, Pixels, Polygon, Rectangle, Shape, ShapeError
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.source.annotated import Imported, Size, SourceClass
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_folder import SourceFolder

MAX_MASK_BYTES = 1 << 26
"""Of an unpacked PNG."""
NO_CLASSES = "the list of classes cannot be read; the classes are those of the annotations, in other colours"
WITHOUT_AREA = {"point", "line", "graph"}


def find(source: SourceFolder) -> str | None:
    """See KnownFormat."""
    files = _files(source)
    return f"meta.json and {len(files)} files in ann/" if "meta.json" in source.files and files else None


def read(source: SourceFolder, _options: ImportOptions, losses: Losses) -> Imported:
    """See KnownFormat."""
    classes = _classes(source, losses)
    found = read_files(source, _files(source), lambda file: _image(source, file, losses), losses)
    # Other exports put masks beside them.
    photographs = [file for file in source.images() if PurePosixPath(file).parent.name == "img"]
    return imported(source, found, classes, losses, photographs)


def _files(source: SourceFolder) -> list[str]:
    fitting = files_with(source, lambda keys: {"{", "objects", "size"} <= keys)
    return [file for file in fitting if PurePosixPath(file).parent.name == "ann"]


def _classes(source: SourceFolder, losses: Losses) -> list[SourceClass]:
    source.used["meta.json"] = "list of classes"
    try:
        listed = tables(table(read_json(source.path("meta.json")), "classes").get("classes"), "classes")
        return [SourceClass(text(each.get("title"), "title"), hex_color(each.get("color"))) for each in listed]
    except ContentError as problem:
        losses.add(UNREADABLE_KIND, NO_CLASSES, f"meta.json {problem}", remedy="export it again")
        return []


def _image(source: SourceFolder, file: str, losses: Losses) -> FoundImage:
    content = table(read_json(source.path(file)), "Supervisely annotation")
    path = PurePosixPath(file)
    regions = [
        region
        for index, each in enumerate(tables(content.get("objects"), "objects"), 1)
        if (region := _region(each, index, file, losses))
    ]
    size = table(content.get("size"), "size")
    return FoundImage(
        file=file,
        spellings=[(path.parent.parent / "img" / path.stem).as_posix()],
        regions=regions,
        size=size_of(size.get("width"), size.get("height")),
        split=split_of(f"{path.parent.parent}/"),
    )


def _region(each: Table, index: int, file: str, losses: Losses) -> FoundRegion | None:
    kind, label = str(each.get("geometryType")), text(each.get("classTitle"), f"classTitle of object {index}")
    if kind in BUILDERS:
        return FoundRegion(label, f"{label} {index}", partial(BUILDERS[kind], each))
    report_shape(kind, f"{file}: {label} {index}", losses, known=kind in WITHOUT_AREA)
    return None


def _bitmap(each: Table, _size: Size) -> Shape:
    """A compressed PNG at a place."""
    bitmap = table(each.get("bitmap"), "bitmap")
    (place,) = points([bitmap.get("origin")], "origin")
    unpacker = zlib.decompressobj()
    try:
        png = unpacker.decompress(decoded(bitmap.get("data"), "data"), MAX_MASK_BYTES)
        mask_HW = _foreground(png)
    except (zlib.error, OSError, ValueError) as error:
        raise ShapeError(f"has a damaged bitmap ({error})") from error
    return Bitmap(mask_HW, int(place[0]), int(place[1]))


def _foreground(png: bytes) -> Pixels:
    """Index 1 of a palette image, or the alpha channel, as Supervisely's own reader takes it."""
    with Image.open(BytesIO(png), formats=("PNG",)) as image:
        values = np.asarray(image.getchannel("A") if "A" in image.getbands() else image)
    if values.ndim != 2:
        raise ShapeError("has a bitmap in colours")
    foreground_HW: Pixels = values != 0
    return foreground_HW


def _polygon(each: Table, _size: Size) -> Shape:
    listed = table(each.get("points"), "points")
    holes = listed.get("interior") or []
    if not isinstance(holes, list):
        raise ContentError("has no interior (a list of lists of points)")
    exterior = points(listed.get("exterior"), "exterior")
    return Polygon(exterior, [points(hole, "interior") for hole in holes], pixel_centres=True)


def _rectangle(each: Table, _size: Size) -> Shape:
    corners = points(table(each.get("points"), "points").get("exterior"), "exterior")
    if len(corners) != 2:
        raise ShapeError(f"has {len(corners)} points; a rectangle has 2")
    return Rectangle(corners[0], corners[1], pixel_centres=True)


BUILDERS: dict[Any, Any] = {"bitmap": _bitmap, "polygon": _polygon, "rectangle": _rectangle}

SUPERVISELY = KnownFormat(
    name="supervisely",
    title="Supervisely project",
    looked_for="meta.json, and DATASET/ann/NAME.json with objects and size",
    find=find,
    read=read,
)
