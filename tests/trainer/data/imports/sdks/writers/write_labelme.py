"""labelme: masks, polygons, rectangles, circles and oriented rectangles."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from labelme import __version__
from labelme._label_file import Annotation, write_label_file
from labelme._utils import shapes_to_label

from tests.trainer.data.imports.sdks.case import Case, new_source, scene_masks
from tests.trainer.data.imports.sdks.scene import (
    ANNOTATED,
    CLASSES,
    FIELD_1,
    PICTURES,
    Picture,
    Region,
    through_centres,
)

TOOL = f"labelme {__version__}"
Shape = dict[str, Any]


def main(root: Path) -> None:
    """Write the cases below a folder."""
    source = new_source(root, "labelme-scene", PICTURES)
    for picture in ANNOTATED:
        write(source, picture, [shape_of(region, picture.shape) for region in picture.regions])
    Case(TOOL, "JSON: mask, polygon, rectangle").write(source, scene_masks(ANNOTATED))

    source = new_source(root, "labelme-shapes", [FIELD_1])
    shapes = [
        shape("circle", "crop", [[12.4, 14.2], [18.1, 16.9]]),
        shape("oriented_rectangle", "weed", [[20.0, 6.5], [31.3, 10.2], [28.8, 17.9], [17.5, 14.2]]),
        shape("polygon", "stone", [[2.5, 1.25], [14.0, 3.5], [9.75, 9.5]]),
        shape("point", "stone", [[36.0, 26.0]]),
    ]
    write(source, FIELD_1, shapes, embedded=True)
    ids = {name: index + 1 for index, name in enumerate(CLASSES)}
    truth_HW, _ = shapes_to_label(img_shape=FIELD_1.shape, shapes=shapes[:3], label_name_to_value=ids)
    case = Case(TOOL, "JSON: circle, oriented rectangle, slanted polygon, point", sentences=["point"])
    case.write(source, {FIELD_1.stem: np.asarray(truth_HW, dtype=np.uint8)})


def shape_of(region: Region, size: tuple[int, int]) -> Shape:
    """The scene's regions in the forms that labelme has for them: a hole needs a mask."""
    if region.hole:
        bits_HW = region.bits(size)
        rows, columns = np.nonzero(bits_HW)
        left, top, right, bottom = columns.min(), rows.min(), columns.max(), rows.max()
        corners = [[float(left), float(top)], [float(right), float(bottom)]]
        return shape("mask", region.name, corners, bits_HW[top : bottom + 1, left : right + 1])
    points = through_centres(region.corners)
    if len(points) == 4:
        return shape("rectangle", region.name, [list(points[0]), list(points[2])])
    return shape("polygon", region.name, [list(point) for point in points])


def shape(kind: str, label: str, points: list[Any], mask: Any = None) -> Shape:
    """A shape as labelme's editor hands it to its writer."""
    rest: Shape = {"flags": {}, "description": "", "group_id": None, "locked": False, "other_data": {}}
    return {"label": label, "points": points, "shape_type": kind, "mask": mask, **rest}


def write(source: Path, picture: Picture, shapes: list[Shape], *, embedded: bool = False) -> None:
    """Write labelme's file beside the photograph."""
    data = (source / picture.file_name).read_bytes()
    write_label_file(
        filename=str(source / f"{picture.stem}.json"),
        annotation=Annotation(picture.file_name, data, shapes, {}, {}),
        image_height=picture.shape[0],
        image_width=picture.shape[1],
        save_image_data=embedded,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
