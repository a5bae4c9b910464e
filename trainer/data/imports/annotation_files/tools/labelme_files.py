"""labelme: a JSON file beside each image. Its points are those of pixel centres, and the outline belongs to a shape."""

import math
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.data.decode import ImageError, decode_values
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
from trainer.data.imports.annotation_files.found_images import FoundImage, imported, read_files
from trainer.data.imports.annotation_files.found_regions import FoundRegion, report_shape
from trainer.data.imports.annotation_files.json_keys import files_with
from trainer.data.imports.drawing.rasterise import Bitmap, Ellipse, Polygon, Rectangle, Shape, ShapeError
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.source.annotated import Imported, Size, SourceClass
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_folder import SourceFolder

IGNORED = "__ignore__"
"""labelme's label for pixels to ignore."""
PNG_START = "iVBORw0KGgo"
"""The signature of PNG in base64; labelme embeds PNG or JPEG."""
WITHOUT_AREA = {"point", "points", "line", "linestrip"}


def find(source: SourceFolder) -> str | None:
    """See KnownFormat."""
    files = _files(source)
    return f"{len(files)} labelme JSON file{'s' if len(files) > 1 else ''}" if files else None


def read(source: SourceFolder, _options: ImportOptions, losses: Losses) -> Imported:
    """See KnownFormat."""
    found = read_files(source, _files(source), lambda file: _image(source, file, losses), losses)
    names = sorted({region.class_name for each in found for region in each.regions})
    return imported(source, found, [SourceClass(name, ignored=name == IGNORED) for name in names], losses)


def _files(source: SourceFolder) -> list[str]:
    return files_with(source, lambda keys: {"{", "shapes", "imagePath"} <= keys)


def _image(source: SourceFolder, file: str, losses: Losses) -> FoundImage:
    content = table(read_json(source.path(file)), "labelme annotation")
    spelling = text(content.get("imagePath"), "imagePath")
    embedded = None
    if isinstance(data := content.get("imageData"), str) and data:
        # Read again when it is written: a folder of embedded images would not fit into memory.
        embedded = (".png" if data.startswith(PNG_START) else ".jpg", partial(_embedded, source.path(file)))
    regions = [
        region
        for index, shape in enumerate(tables(content.get("shapes"), "shapes"), 1)
        if (region := _region(shape, index, file, losses))
    ]
    size = size_of(content.get("imageWidth"), content.get("imageHeight"))
    beside = PurePosixPath(file).with_suffix(PurePosixPath(spelling.replace("\\", "/")).suffix).name
    return FoundImage(file=file, spellings=(spelling, beside), regions=regions, size=size, embedded=embedded)


def _embedded(path: Path) -> bytes:
    try:
        return decoded(table(read_json(path), "labelme annotation").get("imageData"), "imageData")
    except ContentError as error:
        raise ImageError(f"{path.name} {error}") from error


def _region(shape: Table, index: int, file: str, losses: Losses) -> FoundRegion | None:
    kind, label = str(shape.get("shape_type") or "polygon"), text(shape.get("label"), f"label of shape {index}")
    name = f"{label} {index}"
    if kind in BUILDERS:
        return FoundRegion(label, name, partial(BUILDERS[kind], shape))
    report_shape(kind, f"{file}: {name}", losses, known=kind in WITHOUT_AREA)
    return None


def _polygon(shape: Table, _size: Size) -> Shape:
    return Polygon(points(shape.get("points")), pixel_centres=True)


def _rectangle(shape: Table, _size: Size) -> Shape:
    first, second = _two(shape)
    return Rectangle(first, second, pixel_centres=True)


def _circle(shape: Table, _size: Size) -> Shape:
    center, other = _two(shape)
    radius = math.dist(center, other)
    return Ellipse(center, (radius, radius), pixel_centres=True)


def _mask(shape: Table, _size: Size) -> Shape:
    """A PNG of the box between two corners, which are its first and last pixel."""
    (left, top), (right, bottom) = ((round(x), round(y)) for x, y in _two(shape))
    mask_HW = decode_values(BytesIO(decoded(shape.get("mask"), "mask")), Path("its mask")) != 0
    # As labelme: with whole numbers, the corners cut the mask.
    if all(float(part).is_integer() for point in _two(shape) for part in point):
        mask_HW = mask_HW[: max(bottom - top + 1, 0), : max(right - left + 1, 0)]
    return Bitmap(mask_HW, left, top)


def _two(shape: Table) -> list[tuple[float, float]]:
    pair = points(shape.get("points"))
    if len(pair) != 2:
        raise ShapeError(f"has {len(pair)} points; a {shape['shape_type']} has 2")
    return pair


BUILDERS: dict[Any, Any] = {
    "polygon": _polygon,
    "oriented_rectangle": _polygon,
    "rectangle": _rectangle,
    "circle": _circle,
    "mask": _mask,
}

LABELME = KnownFormat(
    name="labelme",
    title="labelme",
    looked_for="JSON files with shapes and imagePath",
    find=find,
    read=read,
)
