"""CVAT: "CVAT for images 1.1" as its server writes it; the run lengths of masks come from CVAT's own SDK."""

import sys
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from cvat_sdk.masks import encode_mask

from tests.trainer.data.imports.sdks.case import Case, new_source, scene_masks
from tests.trainer.data.imports.sdks.scene import (
    ANNOTATED,
    CLASSES,
    COLORS,
    FIELD_1,
    PICTURES,
    Bits,
    Picture,
    Region,
    inside,
    painted,
)

TOOL = f"cvat-sdk {version('cvat-sdk')}"
FORM = "CVAT for images 1.1"


def main(root: Path) -> None:
    """Write the cases below a folder."""
    source = new_source(root, "cvat-images", PICTURES, "images")
    document = opened()
    for number, picture in enumerate(PICTURES):
        image = add_image(document, number, picture)
        # The order in the file is not that of drawing: z_order is.
        for order, region in reversed(list(enumerate(picture.regions))):
            add_region(image, region, picture.shape, order)
    save(source, document)
    Case(TOOL, f"{FORM}: mask, polygon, box, z_order").write(source, scene_masks(ANNOTATED))
    write_rotated(root)


def write_rotated(root: Path) -> None:
    """Boxes and ellipses rotated about their centre; a line has no area, and a tag no place."""
    source = new_source(root, "cvat-rotated", [FIELD_1], "images")
    document = opened()
    image = add_image(document, 0, FIELD_1)
    box = {"xtl": "4.00", "ytl": "9.00", "xbr": "16.00", "ybr": "15.00"}
    ET.SubElement(image, "box", {"label": "crop", "z_order": "0", **box, "rotation": "90.00"})
    ET.SubElement(image, "box", {"label": "weed", "z_order": "0", **moved(box, 20), "rotation": "30.00"})
    shape = {"cx": "30.00", "cy": "22.00", "rx": "7.00", "ry": "4.00", "rotation": "20.00"}
    ET.SubElement(image, "ellipse", {"label": "stone", "z_order": "0", **shape})
    ET.SubElement(image, "polyline", {"label": "crop", "z_order": "0", "points": "1.00,1.00;30.00,2.00"})
    ET.SubElement(image, "tag", {"label": "crop", "source": "manual"})
    save(source, document)
    layers = [
        (1, inside([(7, 6), (13, 6), (13, 18), (7, 18)], FIELD_1.shape)),
        (2, inside([turned(x, y, (30, 12), 30) for x, y in ((24, 9), (36, 9), (36, 15), (24, 15))], FIELD_1.shape)),
        (3, ellipse((30, 22), (7, 4), 20)),
    ]
    case = Case(TOOL, f"{FORM}: rotated boxes and ellipses, line, tag", border_px=1, sentences=["polyline", "tag"])
    case.write(source, {FIELD_1.stem: painted(FIELD_1.shape, layers)})


def opened() -> ET.Element:
    """A document with the labels of a task."""
    document = ET.Element("annotations")
    ET.SubElement(document, "version").text = "1.1"
    labels = ET.SubElement(ET.SubElement(ET.SubElement(document, "meta"), "task"), "labels")
    for name, color in zip(CLASSES, COLORS, strict=True):
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = name
        ET.SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*color)
        ET.SubElement(label, "type").text = "any"
        ET.SubElement(label, "attributes")
    return document


def add_image(document: ET.Element, number: int, picture: Picture) -> ET.Element:
    """An image, in a sub-folder as in a project."""
    height, width = picture.shape
    place = {"id": str(number), "name": picture.file_name, "width": str(width), "height": str(height)}
    return ET.SubElement(document, "image", place)


def add_region(image: ET.Element, region: Region, shape: tuple[int, int], order: int) -> None:
    """The scene's regions as mask, box or polygon."""
    known = {"label": region.name, "source": "manual", "occluded": "0", "z_order": str(order)}
    if region.hole:
        *runs, left, top, right, bottom = map(int, encode_mask(region.bits(shape)))
        box = {"left": left, "top": top, "width": right - left + 1, "height": bottom - top + 1}
        known |= {"rle": ", ".join(map(str, runs))} | {key: str(value) for key, value in box.items()}
        ET.SubElement(image, "mask", known)
    elif len(region.corners) == 4:
        (left, top), _, (right, bottom), _ = region.corners
        box = {"xtl": left, "ytl": top, "xbr": right, "ybr": bottom}
        ET.SubElement(image, "box", known | {key: f"{value:.2f}" for key, value in box.items()})
    else:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in region.corners)
        ET.SubElement(image, "polygon", known | {"points": points})


def save(source: Path, document: ET.Element) -> None:
    """Write annotations.xml."""
    ET.indent(document)
    ET.ElementTree(document).write(source / "annotations.xml", "utf-8", xml_declaration=True)


def moved(box: dict[str, str], pixels: int) -> dict[str, str]:
    """A box further to the right."""
    return {key: f"{float(value) + pixels * key.startswith('x'):.2f}" for key, value in box.items()}


def turned(x: float, y: float, centre: tuple[float, float], degrees: float) -> tuple[float, float]:
    """A point after a clockwise rotation, as seen on a screen."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    right, down = x - centre[0], y - centre[1]
    return centre[0] + right * cosine - down * sine, centre[1] + right * sine + down * cosine


def ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float) -> Bits:
    """Pixels whose centres are in an ellipse that is rotated clockwise, bool [H, W]."""
    y_HW, x_HW = np.indices(FIELD_1.shape) + 0.5
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    right_HW, down_HW = x_HW - centre[0], y_HW - centre[1]
    along_HW, across_HW = right_HW * cosine + down_HW * sine, down_HW * cosine - right_HW * sine
    bits_HW: Bits = (along_HW / radii[0]) ** 2 + (across_HW / radii[1]) ** 2 <= 1
    return bits_HW


if __name__ == "__main__":
    main(Path(sys.argv[1]))
