"""Roboflow: COCO by its library supervision, and the PNG masks of its semantic export."""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import supervision as sv
from PIL import Image

from tests.trainer.data.imports.sdks.case import Case, new_source, scene_masks
from tests.trainer.data.imports.sdks.scene import ANNOTATED, CLASSES, FIELD_1, FIELD_2, FIELD_3, PICTURES

TOOL = f"supervision {version('supervision')}"


def main(root: Path) -> None:
    """Write the cases below a folder."""
    source = new_source(root, "supervision-coco", ANNOTATED, "images")
    detections = {}
    for picture in ANNOTATED:
        masks = np.stack([region.bits(picture.shape) for region in picture.regions])
        ids = np.array([region.id - 1 for region in picture.regions])
        path = str(source / "images" / picture.file_name)
        detections[path] = sv.Detections(xyxy=sv.mask_to_xyxy(masks).astype(np.float32), mask=masks, class_id=ids)
    data = sv.DetectionDataset(classes=list(CLASSES), images=list(detections), annotations=detections)
    data.as_coco(annotations_path=str(source / "annotations.json"))
    case = Case(TOOL, "COCO: polygons through pixel centres, run lengths", sentences=["centres"])
    case.write(source, scene_masks(ANNOTATED))
    write_masks(root)


def write_masks(root: Path) -> None:
    """The semantic export, which Roboflow's server writes: its package only downloads it."""
    source = new_source(root, "roboflow-masks")
    for split, pictures in (("train", [FIELD_1]), ("valid", [FIELD_2]), ("test", [FIELD_3])):
        for picture in pictures:
            picture.save(source / split / picture.file_name)
            Image.fromarray(picture.ids()).save(source / split / f"{picture.stem}_mask.png")
        rows = ["Pixel Value, Class", "0, background", *(f"{index}, {name}" for index, name in enumerate(CLASSES, 1))]
        (source / split / "_classes.csv").write_text("\n".join(rows) + "\n")
    case = Case(f"roboflow {version('roboflow')}", "png-mask-semantic")
    case.write(source, scene_masks(PICTURES))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
