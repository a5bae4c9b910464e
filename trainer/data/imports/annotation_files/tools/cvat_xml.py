"""CVAT's XML "CVAT for images 1.1", of CVAT and datumaro. Coordinates are continuous; z_order is the drawing order."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from xml.etree import ElementTree as ET

from trainer.data.imports.annotation_files.checked_values import ContentError, run_lengths, size_of
from trainer.data.imports.annotation_files.found_images import (
    FoundImage,
    check_readable,
    imported,
    report_unreadable,
    split_of,
)
from trainer.data.imports.annotation_files.found_regions import FoundRegion, report_shape
from trainer.data.imports.annotation_files.hex_colors import hex_color
from trainer.data.imports.drawing.rasterise import Ellipse, Polygon, Rectangle, Shape
from trainer.data.imports.drawing.run_lengths import row_run_lengths
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.known_format import KnownFormat
from trainer.data.imports.source.annotated import Imported, Size, SourceClass
from trainer.data.imports.source.loss_report import Losses
from trainer.data.imports.source.source_folder import SourceFolder

START_BYTES = 1 << 16
WITHOUT_AREA = {"polyline", "points", "tag", "skeleton", "cuboid"}
NO_TRACKS = "tracks of videos are not read"
Attributes = Mapping[str, str]


def find(source: SourceFolder) -> str | None:
    """See KnownFormat."""
    files = _files(source)
    return f"CVAT's XML in {', '.join(files[:3])}" if files else None


def read(source: SourceFolder, _options: ImportOptions, losses: Losses) -> Imported:
    """See KnownFormat."""
    found: list[FoundImage] = []
    classes: dict[str, SourceClass] = {}
    for file in _files(source):
        try:
            document = _parsed(source.path(file).read_bytes())
        except (ContentError, OSError) as problem:
            report_unreadable(file, problem, losses)
            continue
        for label in document.iterfind("meta//labels/label"):
            name = label.findtext("name", "")
            classes.setdefault(name, SourceClass(name, hex_color(label.findtext("color"))))
        found += [_image(image, file, losses) for image in document.iterfind("image")]
        if tracks := len(document.findall("track")):
            remedy = 'export "CVAT for images 1.1"'
            losses.add("unknown shape", NO_TRACKS, file, remedy=remedy, count=tracks)
    check_readable(source, found, losses)
    return imported(source, found, [each for name, each in classes.items() if name], losses)


def _files(source: SourceFolder) -> list[str]:
    return [file for file in source.below(".", (".xml",)) if _is_cvat(source, file)]


def _is_cvat(source: SourceFolder, file: str) -> bool:
    with source.path(file).open("rb") as opened:
        start = opened.read(START_BYTES)
    # Pascal VOC's root is <annotation>.
    return b"<annotations>" in start and (b"<meta>" in start or b"<image " in start)


def _parsed(data: bytes) -> ET.Element:
    # Entities could be expanded to any size; CVAT writes none, and no UTF-16, in which they would be hidden.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data or b"\0" in data:
        raise ContentError("declares a document type, which CVAT does not")
    try:
        return ET.fromstring(data)  # noqa: S314 (without a document type there are no entities)
    except ET.ParseError as error:
        raise ContentError(f"is damaged or ends too early ({error})") from error


def _image(image: ET.Element, file: str, losses: Losses) -> FoundImage:
    ordered: list[tuple[float, FoundRegion]] = []
    for index, each in enumerate(image, 1):
        label = each.get("label", "")
        name = f"{label or each.tag} {index}"
        if each.tag in BUILDERS and label:
            region = FoundRegion(label, name, partial(BUILDERS[each.tag], each.attrib))
            ordered.append((_order(each.attrib), region))
        else:
            report_shape(each.tag, f"{file}: {image.get('name')}: {name}", losses, known=each.tag in WITHOUT_AREA)
    width, height = (int(text) if (text := image.get(key, "")).isdecimal() else None for key in ("width", "height"))
    name, subset = image.get("name", ""), image.get("subset", "")
    return FoundImage(
        file=file,
        # datumaro writes images/SUBSET/NAME, and NAME.
        spellings=[name],
        regions=[region for _, region in sorted(ordered, key=lambda pair: pair[0])],
        size=size_of(width, height),
        split=split_of(f"{subset}/", name, file),
    )


def _order(attributes: Attributes) -> float:
    try:
        return _float(attributes, "z_order", 0.0)
    except ContentError:
        return 0.0


def _float(attributes: Attributes, key: str, default: float | None = None) -> float:
    try:
        value = float(attributes[key])
    except (KeyError, ValueError):
        value = math.nan if default is None else default
    if not math.isfinite(value):
        raise ContentError(f"has no {key} (a number)")
    return value


def _polygon(attributes: Attributes, _size: Size) -> Shape:
    return Polygon(_points(attributes))


def _points(attributes: Attributes) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in attributes.get("points", "").split(";")]
    try:
        return [(float(x), float(y)) for x, y in pairs]
    except ValueError as error:
        raise ContentError("has no points (x,y;x,y;...)") from error


def _box(attributes: Attributes, _size: Size) -> Shape:
    """A box, turned clockwise around its centre."""
    left, top, right, bottom = (_float(attributes, key) for key in ("xtl", "ytl", "xbr", "ybr"))
    degrees = _float(attributes, "rotation", 0.0)
    if not degrees:
        return Rectangle((left, top), (right, bottom))
    center = ((left + right) / 2, (top + bottom) / 2)
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return Polygon(turned(corners, center, degrees))


def turned(
    points: Sequence[tuple[float, float]], center: tuple[float, float], degrees: float
) -> list[tuple[float, float]]:
    """Points turned clockwise around a centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    offsets = [(x - center[0], y - center[1]) for x, y in points]
    return [(center[0] + x * cos - y * sin, center[1] + x * sin + y * cos) for x, y in offsets]


def _ellipse(attributes: Attributes, _size: Size) -> Shape:
    x, y, rx, ry = (_float(attributes, key) for key in ("cx", "cy", "rx", "ry"))
    return Ellipse((x, y), (rx, ry), _float(attributes, "rotation", 0.0))


def _mask(attributes: Attributes, size: Size) -> Shape:
    left, top, width, height = (int(_float(attributes, key)) for key in ("left", "top", "width", "height"))
    if not (0 <= left <= left + width <= size[1] and 0 <= top <= top + height <= size[0]):
        raise ContentError(f"has a mask of {width}x{height} pixels at {left}, {top}, which is not within the image")
    texts = attributes.get("rle", "").split(",")
    runs = run_lengths(int(text) if text.strip().isdecimal() else None for text in texts)
    return row_run_lengths(runs, left, top, width, height)


BUILDERS: dict[str, Any] = {"polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask}

CVAT = KnownFormat(
    name="cvat",
    title="CVAT for images 1.1",
    looked_for="XML files with <annotations> and <image>",
    find=find,
    read=read,
)
