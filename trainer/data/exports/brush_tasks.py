"""Label Studio's JSON: one task for each image, with one brush region for each class.

    images/NAME.jpg
    tasks.json
    label_config.xml        the labelling interface of the project

The tasks name the images as Label Studio's local storage does: relative to LOCAL_FILES_DOCUMENT_ROOT, the export's
folder.
"""

import json
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from trainer.data.exports.brush_runs import brush_runs
from trainer.data.exports.coco_labels import FOLDERS
from trainer.data.exports.exported_dataset import ExportedDataset, ExportedImage
from trainer.data.exports.label_regions import IGNORED_REGIONS, IGNORED_REMEDY, LabelRegions
from trainer.data.exports.output_sink import Sink

LOCAL_FILES = "/data/local-files/?d="
IMAGE, LABELS = "image", "tag"
"""Names of the two controls of the labelling interface."""
SHOWN = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".avif"}
NOT_SHOWN = "browsers do not show an image of this type, so Label Studio does not either"


def write_label_studio(dataset: ExportedDataset, sink: Sink) -> None:
    """Write the data set. Raises ExportError if a class is called `__ignore__`."""
    rule = LabelRegions.of(dataset.taxonomy)
    names = {label: name for label, name, _ in rule.labels(ignored=True)}

    def convert(image: ExportedImage) -> tuple[dict[str, Any], bool]:
        mask_HW = dataset.mask(image)
        regions = [] if mask_HW is None else list(rule.split(mask_HW))
        size = dataset.size(image)
        results = [
            _result(index, names[each.label], brush_runs(each.pixels_HW), size) for index, each in enumerate(regions)
        ]
        ignored = any(each.label == len(rule.taxonomy) for each in regions)
        return {"data": _data(image), "annotations": [{"result": results}] if image.labelled else []}, ignored

    tasks = []
    any_ignored = False
    for image, (task, ignored) in dataset.each(convert):
        tasks.append(task)
        if ignored:
            any_ignored = True
            dataset.losses.add("ignored pixels", IGNORED_REGIONS, image.name, remedy=IGNORED_REMEDY)
        if PurePosixPath(image.file).suffix.lower() not in SHOWN:
            dataset.losses.add("not shown", NOT_SHOWN, image.file, remedy="convert it to PNG")
        if dataset.with_images:
            sink.add(f"images/{image.file}", dataset.content(image))
    rule.report(dataset.losses)
    sink.add("tasks.json", json.dumps(tasks, ensure_ascii=False).encode())
    sink.add("label_config.xml", _config(rule, ignored=any_ignored).encode())


def _data(image: ExportedImage) -> dict[str, str]:
    data = {"image": LOCAL_FILES + quote(f"images/{image.file}"), "name": image.name, "split": FOLDERS[image.split]}
    return data | ({"group": image.group} if image.group else {})


def _result(index: int, name: str, runs: list[int], size: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": f"region-{index}",
        "type": "brushlabels",
        "from_name": LABELS,
        "to_name": IMAGE,
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": runs, "brushlabels": [name]},
    }


def _config(rule: LabelRegions, *, ignored: bool) -> str:
    view = ET.Element("View")
    ET.SubElement(view, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true", zoomControl="true")
    labels = ET.SubElement(view, "BrushLabels", name=LABELS, toName=IMAGE)
    for _, name, color in rule.labels(ignored=ignored):
        ET.SubElement(labels, "Label", value=name, background="#{:02x}{:02x}{:02x}".format(*color))
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"
