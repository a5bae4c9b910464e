"""V7 Darwin: JSON 2.0 with polygons or a raster layer. Its own writer drops masks, so its parser checks the files."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from darwin.utils import parse_darwin_json
from upolygon import draw_polygon

from tests.trainer.data.imports.sdks.case import Case, new_source, scene_masks
from tests.trainer.data.imports.sdks.scene import ANNOTATED, FIELD_1, PICTURES, Picture, painted, through_centres

TOOL = f"darwin-py {version('darwin-py')}"
Table = dict[str, Any]


def main(root: Path) -> None:
    """Write the cases below a folder."""
    source = new_source(root, "darwin-raster", PICTURES, "images")
    for picture in ANNOTATED:
        write(source, picture, raster(picture))
    Case(TOOL, "Darwin JSON 2.0: masks").write(source, scene_masks(ANNOTATED))

    source = new_source(root, "darwin-polygons", [FIELD_1], "images")
    annotations = [
        polygon(region.name, [through_centres(path) for path in (region.corners, region.hole) if path])
        for region in FIELD_1.regions
    ]
    write(source, FIELD_1, [*annotations, {"id": "t", "name": "dry", "tag": {}, "slot_names": ["0"]}])
    layers = []
    for region, annotation in zip(FIELD_1.regions, annotations, strict=True):
        bits_HW = np.zeros(FIELD_1.shape, dtype=np.int32)
        paths = [[part for point in path for part in point.values()] for path in annotation["polygon"]["paths"]]
        draw_polygon(bits_HW, paths, 1)
        layers.append((region.id, bits_HW == 1))
    case = Case(TOOL, "Darwin JSON 2.0: polygons with a hole, tag", sentences=["tag"])
    case.write(source, {FIELD_1.stem: painted(FIELD_1.shape, layers)})


def raster(picture: Picture) -> list[Table]:
    """A mask annotation for each region, and the layer that has the pixels."""
    instances_HW = painted(
        picture.shape, [(number, region.bits(picture.shape)) for number, region in enumerate(picture.regions, 1)]
    )
    flat = instances_HW.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    lengths = np.diff(starts, append=len(flat))
    runs = [int(each) for pair in zip(flat[starts], lengths, strict=True) for each in pair]
    ids = [f"mask-{number}" for number in range(1, len(picture.regions) + 1)]
    masks: list[Table] = [
        {"id": key, "name": region.name, "mask": {}, "properties": [], "slot_names": ["0"]}
        for key, region in zip(ids, picture.regions, strict=True)
    ]
    layer = {
        "dense_rle": runs,
        "mask_annotation_ids_mapping": {key: number for number, key in enumerate(ids, 1)},
        "total_pixels": len(flat),
    }
    return [*masks, {"id": "r", "name": "__raster_layer__", "raster_layer": layer, "slot_names": ["0"]}]


def polygon(name: str, paths: list[list[tuple[int, int]]]) -> Table:
    """A polygon, whose further paths are holes."""
    points = [[{"x": float(x), "y": float(y)} for x, y in path] for path in paths]
    xs, ys = zip(*paths[0], strict=True)
    box = {"x": min(xs), "y": min(ys), "w": max(xs) - min(xs), "h": max(ys) - min(ys)}
    return {"id": name, "name": name, "polygon": {"paths": points}, "bounding_box": box, "slot_names": ["0"]}


def write(source: Path, picture: Picture, annotations: list[Table]) -> None:
    """Write the file of one photograph, which Darwin's own parser must read."""
    height, width = picture.shape
    slot = {"type": "image", "slot_name": "0", "width": width, "height": height}
    slot["source_files"] = [{"file_name": picture.file_name, "url": f"https://example.org/{picture.stem}"}]
    item = {"name": picture.file_name, "path": "/", "slots": [slot]}
    schema = "https://darwin-public.s3.eu-west-1.amazonaws.com/darwin_json/2.0/schema.json"
    table = {"version": "2.0", "schema_ref": schema, "item": item, "annotations": annotations}
    path = source / "annotations" / f"{picture.stem}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(table))
    parsed = parse_darwin_json(path, count=0)
    if parsed is None or len(parsed.annotations) != len(annotations):
        raise SystemExit(f"{TOOL} does not read {path.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
