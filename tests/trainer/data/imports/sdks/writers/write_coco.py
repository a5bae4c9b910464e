"""COCO by pycocotools: polygons and both forms of run lengths, and the layout of Roboflow's export."""

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from tests.trainer.data.imports.sdks.case import Case, new_source, scene_masks
from tests.trainer.data.imports.sdks.scene import (
    ANNOTATED,
    CLASSES,
    FIELD_1,
    FIELD_2,
    FIELD_3,
    PICTURES,
    Picture,
    Region,
)

TOOL = f"pycocotools {version('pycocotools')}"
Table = dict[str, Any]


def main(root: Path) -> None:
    """Write the cases below a folder."""
    source = new_source(root, "coco-runs", PICTURES, "images/default")
    categories = [{"id": 10 * index, "name": name, "supercategory": ""} for index, name in enumerate(CLASSES, 1)]
    write(source / "annotations/instances_default.json", PICTURES, categories)
    Case(TOOL, "COCO: polygons, run lengths as list and as string").write(source, scene_masks(ANNOTATED))

    source = new_source(root, "roboflow-coco")
    group = {"id": 0, "name": "fields", "supercategory": "none"}
    listed = [{"id": index, "name": name, "supercategory": "fields"} for index, name in enumerate(CLASSES, 1)]
    expected = {}
    for split, picture in (("train", FIELD_1), ("valid", FIELD_2), ("test", FIELD_3)):
        stem = f"{picture.stem.replace(' ', '-')}_png.rf.0123456789abcdef"
        renamed = Picture(f"{stem}.jpg", picture.shape, picture.regions)
        renamed.save(source / split / renamed.file_name)
        write(source / split / "_annotations.coco.json", [renamed], [group, *listed])
        if picture.regions:
            expected[stem] = picture.ids()
    Case(TOOL, "COCO in Roboflow's layout").write(source, expected)


def write(path: Path, pictures: Sequence[Picture], categories: list[Table]) -> None:
    """Write a file with the regions of pictures."""
    ids = {category["name"]: category["id"] for category in categories}
    images: list[Table] = []
    annotations: list[Table] = []
    for number, picture in enumerate(pictures, 100):
        height, width = picture.shape
        images.append({"id": number, "file_name": picture.file_name, "height": height, "width": width})
        for region in picture.regions:
            encoded = rle.encode(np.asfortranarray(region.bits(picture.shape).astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": ids[region.name],
                    "segmentation": segmentation(region, picture, encoded),
                    "area": int(rle.area(encoded)),
                    "bbox": rle.toBbox(encoded).tolist(),
                    "iscrowd": 0,
                }
            )
    table = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table))


def segmentation(region: Region, picture: Picture, encoded: Any) -> Any:
    """Run lengths where there is a hole: as a string in one picture, and as a list in the other."""
    if not region.hole:
        return [[float(part) for corner in region.corners for part in corner]]
    if picture.stem.startswith("field_1"):
        return {"size": list(picture.shape), "counts": encoded["counts"].decode()}
    flat = region.bits(picture.shape).T.ravel()
    starts = np.flatnonzero(np.diff(flat.astype(int), prepend=0))
    return {"size": list(picture.shape), "counts": [int(run) for run in np.diff([0, *starts, flat.size])]}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
