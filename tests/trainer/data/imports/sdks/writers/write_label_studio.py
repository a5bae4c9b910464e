"""Label Studio: JSON, JSON_MIN, COCO and brush PNGs, as its converter exports them."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import mask2rle
from label_studio_sdk.converter.utils import convert_annotation_to_yolo_obb

from tests.trainer.data.imports.sdks.case import Case, new_source, scene_masks
from tests.trainer.data.imports.sdks.scene import (
    ANNOTATED,
    CLASSES,
    COLORS,
    FIELD_1,
    FIELD_2,
    FIELD_3,
    PICTURES,
    Picture,
    Region,
    inside,
    painted,
    rectangle,
)

TOOL = f"label-studio-sdk {version('label-studio-sdk')}"
TAGS = {"brushlabels": "BrushLabels", "polygonlabels": "PolygonLabels", "rectanglelabels": "RectangleLabels"}
TAGS["ellipselabels"] = "EllipseLabels"
DATA = {
    FIELD_1.stem: "/data/upload/3/1a2b3c4d-field_1.png",
    FIELD_2.stem: "/data/local-files/?d=photographs%2Ffield%202.jpg",
    FIELD_3.stem: "s3://fields/photographs/field_3.png",
}
Table = dict[str, Any]


def main(root: Path) -> None:
    """Write the cases below a folder."""
    tasks = [task(number, picture) for number, picture in enumerate(PICTURES, 7)]
    first = dict.fromkeys(("created_at", "updated_at"), "2026-11-01T08:00:00.000000Z")
    # An earlier annotation of another annotator, and one that was skipped.
    old = annotation(1, [polygon(Region("stone", rectangle(0, 0, 40, 30)), FIELD_1)], **first)
    tasks[0]["annotations"] += [old, old | {"id": 2, "was_cancelled": True, "updated_at": "2026-11-30T08:00:00Z"}]
    source = convert(root, "label-studio-json", "JSON", tasks)
    Case(TOOL, "JSON: brush, polygon, rectangle", sentences=["newest"]).write(source, scene_masks(ANNOTATED))
    source = convert(root, "label-studio-json-min", "JSON_MIN", tasks[1:])
    Case(TOOL, "JSON_MIN").write(source, scene_masks([FIELD_2]))
    source = convert(root, "label-studio-brush-png", "BRUSH_TO_PNG", tasks[1:])
    Case(TOOL, "BRUSH_TO_PNG, with the JSON").write(source, scene_masks([FIELD_2]))
    (source / "tasks.json").write_text(json.dumps(tasks[1:]))
    write_coco(root)
    write_slanted(root)


def write_coco(root: Path) -> None:
    """Polygons alone: the COCO export drops what a brush drew."""
    tasks = [task(number, picture, only_polygons=True) for number, picture in enumerate(ANNOTATED, 7)]
    source = convert(root, "label-studio-coco", "COCO", tasks)
    expected = {
        picture.stem: painted(
            picture.shape, [(region.id, inside(region.corners, picture.shape)) for region in picture.regions]
        )
        for picture in ANNOTATED
    }
    Case(TOOL, "COCO: polygons").write(source, expected)


def write_slanted(root: Path) -> None:
    """Rectangles rotated about their upper left corner, and an ellipse."""
    source = new_source(root, "label-studio-rotated", [FIELD_1])
    height, width = FIELD_1.shape
    turned = {"x": 50.0, "y": 20.0, "width": 25.0, "height": 20.0, "rotation": 90}
    slanted = {"x": 10.0, "y": 30.0, "width": 30.0, "height": 30.0, "rotation": 25.0}
    ellipse = {"x": 70.0, "y": 60.0, "radiusX": 20.0, "radiusY": 15.0, "rotation": 0}
    results = [
        result("rectanglelabels", "crop", turned, FIELD_1),
        result("rectanglelabels", "weed", slanted, FIELD_1),
        result("ellipselabels", "stone", ellipse, FIELD_1),
    ]
    (source / "tasks.json").write_text(
        json.dumps([{"id": 7, "data": {"image": DATA[FIELD_1.stem]}} | {"annotations": [annotation(3, results)]}])
    )
    sizes = {"original_width": width, "original_height": height}
    boxes = [convert_annotation_to_yolo_obb(each | sizes, normalize=False) for each in (turned, slanted)]
    y_HW, x_HW = np.indices(FIELD_1.shape) + 0.5
    stone_HW = ((x_HW - 28) / 8) ** 2 + ((y_HW - 18) / 4.5) ** 2 <= 1
    layers = [(index + 1, inside(box, FIELD_1.shape)) for index, box in enumerate(boxes)]
    case = Case(TOOL, "JSON: rotated rectangles, ellipse", border_px=1)
    case.write(source, {FIELD_1.stem: painted(FIELD_1.shape, [*layers, (3, stone_HW)])})


def convert(root: Path, name: str, form: str, tasks: list[Table]) -> Path:
    """Export tasks with Label Studio's converter."""
    source = new_source(root, name, PICTURES, "photographs")
    listed = "".join(
        f'<Label value="{label}" background="rgb{color}"/>' for label, color in zip(CLASSES, COLORS, strict=True)
    )
    labels = "".join(f'<{tag} name="{kind}" toName="image">{listed}</{tag}>' for kind, tag in TAGS.items())
    config = f'<View><Image name="image" value="$image"/>{labels}</View>'
    given = source.parent / "tasks.json"
    given.write_text(json.dumps(tasks))
    Converter(config, str(source), download_resources=False).convert(str(given), str(source), form, is_dir=False)
    given.unlink()
    return source


def task(number: int, picture: Picture, *, only_polygons: bool = False) -> Table:
    """A task with one annotation: a brush where there is a hole, else a polygon or a rectangle."""
    table: Table = {"id": number, "data": {"image": DATA[picture.stem]}, "annotations": [], "predictions": []}
    results = [polygon(region, picture) if only_polygons else drawn(region, picture) for region in picture.regions]
    if results:
        table["annotations"].append(annotation(10 + number, results))
    return table


def annotation(number: int, results: list[Table], **changes: Any) -> Table:
    """An annotation as the export has it."""
    when = "2026-11-20T08:00:00.000000Z"
    rest = {"completed_by": 1, "was_cancelled": False, "ground_truth": False, "created_at": when, "updated_at": when}
    return {"id": number, "result": results, "lead_time": 4.2} | rest | changes


def drawn(region: Region, picture: Picture) -> Table:
    """The form in which a person would draw a region."""
    if region.hole:
        mask_HW = region.bits(picture.shape).astype(np.uint8) * 255
        return result("brushlabels", region.name, {"format": "rle", "rle": mask2rle(mask_HW)}, picture)
    if len(region.corners) == 4:
        (left, top), _, (right, bottom), _ = region.corners
        height, width = picture.shape
        box = {"x": left / width * 100, "y": top / height * 100, "rotation": 0}
        sides = {"width": (right - left) / width * 100, "height": (bottom - top) / height * 100}
        return result("rectanglelabels", region.name, box | sides, picture)
    return polygon(region, picture)


def polygon(region: Region, picture: Picture) -> Table:
    """A region's outline in percent of the photograph."""
    height, width = picture.shape
    points = [[x / width * 100, y / height * 100] for x, y in region.corners]
    return result("polygonlabels", region.name, {"points": points, "closed": True}, picture)


def result(kind: str, label: str, value: Table, picture: Picture) -> Table:
    """One region of an annotation."""
    height, width = picture.shape
    sizes = {"original_width": width, "original_height": height, "image_rotation": 0}
    names = {"from_name": kind, "to_name": "image", "type": kind, "origin": "manual", "id": f"{kind}-{label}"}
    return {**sizes, **names, "value": value | {kind: [label]}}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
