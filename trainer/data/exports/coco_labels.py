"""COCO's format: one compressed run-length encoding for each class of each image.

images/SPLIT/NAME.jpg
annotations/instances_SPLIT.json
"""

# H W pixels

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle

from trainer.data.exports.exported_dataset import ExportedDataset, ExportedImage
from trainer.data.exports.label_regions import IGNORED_REGIONS, IGNORED_REMEDY, LabelRegions, Region
from trainer.data.exports.output_sink import Sink

FOLDERS = {"labelled": "train", "val": "val", "test": "test", "unlabelled": "unlabelled"}
"""COCO's word for each split."""


def write_coco(dataset: ExportedDataset, sink: Sink) -> None:
    """Write the data set. Raises ExportError if a class is called `__ignore__`."""
    rule = LabelRegions.of(dataset.taxonomy)

    def convert(image: ExportedImage) -> tuple[tuple[int, int], list[dict[str, Any]]]:
        mask_HW = dataset.mask(image)
        regions = () if mask_HW is None else rule.split(mask_HW)
        return dataset.size(image), [_annotation(region) for region in regions]

    images: dict[str, list[dict[str, Any]]] = defaultdict(list)
    annotations: dict[str, list[dict[str, Any]]] = defaultdict(list)
    ignored = False
    for number, (image, (size, regions)) in enumerate(dataset.each(convert), 1):
        folder = FOLDERS[image.split]
        images[folder].append(_image(number, image, size))
        for each in regions:
            annotations[folder].append({"id": len(annotations[folder]) + 1, "image_id": number, **each})
        if any(each["category_id"] == _category(len(rule.taxonomy)) for each in regions):
            ignored = True
            dataset.losses.add("ignored pixels", IGNORED_REGIONS, image.name, remedy=IGNORED_REMEDY)
        if dataset.with_images:
            sink.add(f"images/{folder}/{image.file}", dataset.content(image))
    rule.report(dataset.losses)
    categories = [
        {"id": _category(label), "name": name, "supercategory": name, "color": list(color)}
        for label, name, color in rule.labels(ignored=ignored)
    ]
    for folder, listed in images.items():
        table = {"images": listed, "annotations": annotations[folder], "categories": categories}
        sink.add(f"annotations/instances_{folder}.json", json.dumps(table, ensure_ascii=False).encode())


def _category(label: int) -> int:
    """Category id: from 1, since tools take 0 for background."""
    return label + 1


def _image(number: int, image: ExportedImage, size: Sequence[int]) -> dict[str, Any]:
    group = {"group": image.group} if image.group else {}
    return {"id": number, "file_name": image.file, "width": size[1], "height": size[0], **group}


def _annotation(region: Region) -> dict[str, Any]:
    runs: Any = rle.encode(np.asfortranarray(region.pixels_HW, dtype=np.uint8))
    return {
        "category_id": _category(region.label),
        "segmentation": {"size": list(runs["size"]), "counts": runs["counts"].decode("ascii")},
        "area": int(rle.area(runs)),
        "bbox": rle.toBbox(runs).tolist(),
        "iscrowd": 0,
    }
