#!/usr/bin/env bash
# One would guess: a mask that supervision writes as a COCO polygon has the same pixels in COCO's own tools as in the area beside it.
# True: its polygons run through the centres of the outermost pixels, so pycocotools draws a square of 10x10 pixels with 81, with no warning.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet supervision==0.31.2 pycocotools==2.0.11 numpy==2.4.6 pillow==13.0.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import supervision as sv
from PIL import Image
from pycocotools.coco import COCO

Image.new("RGB", (40, 30)).save("picture.png")
masks = np.zeros((1, 30, 40), dtype=bool)
masks[0, 5:15, 10:20] = True
drawn = sv.Detections(xyxy=sv.mask_to_xyxy(masks).astype(np.float32), mask=masks, class_id=np.array([0]))
data = sv.DetectionDataset(classes=["car"], images=["picture.png"], annotations={"picture.png": drawn})
data.as_coco(annotations_path="annotations.json")

coco = COCO("annotations.json")
(annotation,) = coco.loadAnns(coco.getAnnIds())
pixels = int(coco.annToMask(annotation).sum())
again = sv.DetectionDataset.from_coco(".", "annotations.json", force_masks=True)
own = int(next(iter(again.annotations.values())).mask.sum())
print("supervision", version("supervision"), "pycocotools", version("pycocotools"))
print(f"  polygon {[int(part) for part in annotation['segmentation'][0]]}, area {annotation['area']}")
print(f"  pixels: {masks.sum()} drawn, {pixels} by pycocotools, {own} by supervision")
if (int(masks.sum()), annotation["area"], pixels, own) != (100, 100, 81, 100):
    raise SystemExit("the behaviour has changed")
PYTHON
