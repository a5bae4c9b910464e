"""Supervisely: a project with bitmaps, polygons with holes and rectangles."""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import supervisely as sly

from tests.trainer.data.imports.sdks.case import Case, new_source, scene_masks
from tests.trainer.data.imports.sdks.scene import (
    ANNOTATED,
    CLASSES,
    COLORS,
    FIELD_1,
    PICTURES,
    Picture,
    Region,
    painted,
    through_centres,
)

TOOL = f"supervisely {version('supervisely')}"


def main(root: Path) -> None:
    """Write the cases below a folder."""
    classes = {name: sly.ObjClass(name, sly.AnyGeometry, color) for name, color in zip(CLASSES, COLORS, strict=True)}
    labels = {
        picture: [sly.Label(geometry(region, picture.shape), classes[region.name]) for region in picture.regions]
        for picture in PICTURES
    }
    source = project(root, "supervisely-project", list(classes.values()), labels)
    Case(TOOL, "project: bitmap, polygon, rectangle").write(source, scene_masks(ANNOTATED))

    holed = sly.Polygon([[3, 4], [8, 25], [22, 30], [25, 6]], [[[9, 12], [10, 20], [15, 20], [15, 12]]])
    shapes = [sly.Label(holed, classes["crop"]), sly.Label(sly.Point(1, 1), classes["stone"])]
    source = project(root, "supervisely-hole", list(classes.values()), {FIELD_1: shapes})
    bits_HW = np.zeros(FIELD_1.shape, dtype=np.uint8)
    holed.draw(bits_HW, 1)
    case = Case(TOOL, "project: slanted polygon with a hole", border_px=1, sentences=["point"])
    case.write(source, {FIELD_1.stem: painted(FIELD_1.shape, [(1, bits_HW == 1)])})


def project(root: Path, name: str, classes: list[sly.ObjClass], labels: dict[Picture, list[sly.Label]]) -> Path:
    """Write a project of one data set."""
    source = new_source(root, name)
    photographs = new_source(root, f"{name}-photographs", list(labels))
    source.rmdir()
    written = sly.Project(str(source), sly.OpenMode.CREATE)
    written.set_meta(sly.ProjectMeta(classes))
    dataset = written.create_dataset("fields")
    for picture, shapes in labels.items():
        path = photographs / picture.file_name
        dataset.add_item_file(picture.file_name, str(path), sly.Annotation(picture.shape, shapes))
        path.unlink()
    photographs.rmdir()
    photographs.parent.rmdir()
    return source


def geometry(region: Region, shape: tuple[int, int]) -> object:
    """The scene's regions in the three geometries."""
    if region.hole:
        return sly.Bitmap(region.bits(shape))
    points = through_centres(region.corners)
    if len(points) == 4:
        (left, top), _, (right, bottom), _ = points
        return sly.Rectangle(top, left, bottom, right)
    return sly.Polygon([[y, x] for x, y in points], [])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
