"""What does not fit in annotation files: the rest is imported, and each fault is a sentence with its place."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.data.imports.imported import error_of, import_folder, photograph

# pycocotools implements __array__ without the `copy` argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Table = dict[str, Any]
SQUARE = [[0, 0, 4, 0, 4, 4, 0, 4]]
CATEGORIES = [{"id": 1, "name": "crop"}]


def coco(*annotations: Table, **changes: Any) -> Table:
    images = [{"id": 7, "file_name": "a.png", "height": 30, "width": 40}]
    drawn = {"id": 1, "image_id": 7, "category_id": 1, "segmentation": SQUARE}
    return {"images": images, "categories": CATEGORIES, "annotations": [drawn, *annotations]} | changes


def second(**changes: Any) -> Table:
    return {"id": 2, "image_id": 7, "category_id": 1, "segmentation": SQUARE} | changes


def labelme(*shapes: Table, **changes: Any) -> Table:
    drawn = {"label": "crop", "points": [[0, 0], [3, 0], [3, 3], [0, 3]], "shape_type": "polygon"}
    return {"shapes": [drawn, *shapes], "imagePath": "a.png", "imageHeight": 30, "imageWidth": 40} | changes


def shape(kind: str, **changes: Any) -> Table:
    return {"label": "crop", "points": [[1, 1], [2, 2]], "shape_type": kind} | changes


def tasks(*results: Table, **changes: Any) -> list[Table]:
    box = {"x": 0, "y": 0, "width": 10, "height": 13.4, "rotation": 0, "rectanglelabels": ["crop"]}
    annotation = {"id": 1, "completed_by": 1, "result": [result(box), *results]}
    return [{"id": 3, "data": {"image": "/data/upload/1/a.png"}, "annotations": [annotation]} | changes]


def result(value: Table, **changes: Any) -> Table:
    return {"type": "any", "original_width": 40, "original_height": 30, "value": value} | changes


def darwin(*annotations: Table) -> Table:
    corners = [{"x": x, "y": y} for x, y in ((0, 0), (3, 0), (3, 3), (0, 3))]
    drawn = {"id": "1", "name": "crop", "polygon": {"paths": [corners]}}
    item = {"name": "a.png", "path": "/", "slots": [{"width": 40, "height": 30}]}
    return {"version": "2.0", "item": item, "annotations": [drawn, *annotations]}


def layer(runs: list[int], key: str = "m") -> list[Table]:
    raster = {"dense_rle": runs, "mask_annotation_ids_mapping": {key: 1}, "total_pixels": 1200}
    return [{"id": "m", "name": "crop", "mask": {}}, {"id": "r", "name": "__raster_layer__", "raster_layer": raster}]


def source(folder: Path, content: Any, name: str = "labels.json") -> Path:
    root = folder / "source"
    photograph(root / "a.png")
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return root


CORNERS = {"points": [[0, 0], [10, 0], [10, 10]]}
KEPT = [
    (coco(second(segmentation={"size": [30, 40], "counts": [600, 10]})), "has run lengths for 610 of 1200 pixels"),
    (coco(second(segmentation={"size": [40, 30], "counts": [600, 600]})), "has run lengths for size [40, 30]"),
    (coco(second(segmentation=[[0, 0, 4, 4]])), "has a polygon of 4 numbers"),
    (coco(second(segmentation=[[0, 0, 4, 0, None, 4]])), "has no numbers as coordinates"),
    (coco(second(segmentation=[])), "has no segmentation, only a box"),
    (coco(second(image_id=8)), "belongs to an image that the file does not list"),
    (coco(second(image_id="7")), "is text where the image's id is a number"),
    (coco(second(category_id=9)), "has a category that the file does not list"),
    (coco(categories=[*CATEGORIES, {"id": 2}]), "has no id or no name"),
    (labelme(shape("linestrip")), "of type 'linestrip' has no area"),
    (labelme(shape("cube")), "of type 'cube' is not read"),
    (labelme(shape("circle", points=[[1, 1]])), "has 1 points; a circle has 2"),
    (labelme(shape("mask", mask="AAAA")), "its mask: cannot be decoded"),
    (labelme(shape("polygon", points=[[0, 0], [900, 0], [5, 5]])), "far outside the image"),
    (tasks(result({"rle": [0, 0, 4, 0] + [0] * 9, "brushlabels": ["crop"]})), "has a brush of 256 pixels"),
    (tasks(result({"rle": [0, 0, 18, 192, 57, 27], "brushlabels": ["crop"]})), "has a brush that ends too early"),
    (tasks(result(CORNERS | {"polygonlabels": ["crop", "wet"]})), "a region has several labels"),
    (tasks(result(CORNERS)), "a region has no label"),
    (tasks(result(CORNERS | {"polygonlabels": ["crop"]}, image_rotation=90)), "a picture that was rotated"),
    (tasks(result({"x": 5, "y": 5, "width": 1, "keypointlabels": ["crop"]})), "of type 'keypoint' has no area"),
    (darwin(*layer([0, 1100, 1, 10])), "has run lengths for 1110 of 1200 pixels"),
    (darwin(*layer([0, 1190, 1, 10], key="other")), "a mask is in no raster layer"),
    (darwin({"id": "2", "name": "dry", "tag": {}}), "of type 'tag' has no area"),
]


@pytest.mark.parametrize(("content", "sentence"), KEPT, ids=[sentence for _, sentence in KEPT])
def test_faulty_annotation_is_reported_and_the_others_are_drawn(content: Any, sentence: str, tmp_path: Path) -> None:
    result = import_folder(source(tmp_path, content))
    told = [line for loss in result.account["losses"] for line in (loss["message"], *loss["examples"])]
    assert any(sentence in line for line in told), told
    (mask_HW,) = result.masks.values()
    assert np.array_equal(mask_HW == result.classes.index("crop"), np.indices((30, 40)).max(axis=0) < 4)


NOT_READ = [
    (json.dumps(coco())[:-40], "ends too early"),
    ({"images": [], "annotations": [{"image_id": 1, "category_id": 1}]}, "has no categories (a list of objects)"),
    (labelme(imagePath=None), "has no imagePath (a text)"),
    (labelme(shape("polygon", label=None)), "has no label of shape 2 (a text)"),
    (json.dumps(tasks())[:-9], "ends too early"),
]


@pytest.mark.parametrize(("content", "sentence"), NOT_READ, ids=[sentence for _, sentence in NOT_READ])
def test_file_that_cannot_be_read_is_an_error(content: Any, sentence: str, tmp_path: Path, capsys: Any) -> None:
    message = error_of(capsys, source(tmp_path, content))
    assert f"source: no annotations can be read: labels.json {sentence}" in message
    assert message.rstrip().endswith("export them again")


def test_one_file_of_several_that_cannot_be_read_costs_its_own_labels_only(tmp_path: Path) -> None:
    root = source(tmp_path, labelme())
    photograph(root / "b.png")
    (root / "b.json").write_text(json.dumps(labelme(imagePath="b.png"))[:-10])
    result = import_folder(root)
    assert list(result.masks) == ["a"]
    (loss,) = result.losses("unreadable annotations")
    assert loss["examples"][0].startswith("b.json ends too early")


@pytest.mark.parametrize("content", [coco, labelme, tasks, darwin])
def test_annotations_of_another_image_size_are_not_drawn(content: Any, tmp_path: Path) -> None:
    root = source(tmp_path, content())
    photograph(root / "a.png", size=(60, 80))
    result = import_folder(root)
    (loss,) = result.losses("unusable label")
    sentence = "a.png: was annotated with 40x30 pixels and has 80x60 (width x height); use the image that was annotated"
    assert loss["examples"] == [sentence]
    assert not result.masks


def test_size_that_a_coco_file_claims_takes_no_memory(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "a.png", "height": 10**9, "width": 10**9}]
    (loss,) = import_folder(source(tmp_path, coco(images=images))).losses("unusable label")
    assert "was annotated with 1000000000x1000000000 pixels" in loss["examples"][0]


def test_annotations_of_the_stored_instead_of_the_upright_image_are_not_drawn(tmp_path: Path) -> None:
    root = source(tmp_path, labelme())
    photograph(root / "a.png", orientation=6)
    (loss,) = import_folder(root).losses("unusable label")
    assert "annotate the image as viewers show it, or remove its EXIF orientation" in loss["examples"][0]


def test_only_boxes_give_no_masks_and_the_remedy(tmp_path: Path) -> None:
    result = import_folder(source(tmp_path, coco(annotations=[second(segmentation=[], bbox=[0, 0, 4, 4])])))
    assert not result.masks
    (loss,) = result.losses("no segmentation")
    assert loss["remedy"] == "export polygons or masks"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"annotations": [{"was_cancelled": True, "result": []}]}, "the annotators skipped a task"),
        ({"annotations": [], "predictions": [{"result": []}]}, "a task has only predictions, which are not labels"),
    ],
)
def test_task_without_a_valid_annotation_is_unlabelled(change: Table, sentence: str, tmp_path: Path) -> None:
    result = import_folder(source(tmp_path, tasks(**change) + tasks(data={"image": "b.png"})))
    assert not result.masks
    assert sentence in [loss["message"] for loss in result.account["losses"]]


def test_brush_pngs_without_their_tasks_are_an_error(tmp_path: Path, capsys: Any) -> None:
    root = tmp_path / "source"
    photograph(root / "photographs/a.png")
    photograph(root / "task-7-annotation-3-by-1-tag-crop-0.png")
    assert "export JSON too, and put the file beside them" in error_of(capsys, root)


BOX = '<box label="crop" xtl="0" ytl="0" xbr="4" ybr="4"/>'
MASK = '<mask label="crop" rle="3, 4" left="0" top="0" width="3" height="3"/>'
LARGE = '<mask label="crop" rle="9999800001" left="0" top="0" width="99999" height="99999"/>'
XML = '<annotations><meta/><image name="a.png" width="40" height="30">{}</image></annotations>'


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            XML.format(f'<mask label="crop" rle="3, 4" left="0" top="0" width="3" height="3"/>{BOX}'),
            "for 7 of 9 pixels",
        ),
        (XML.format(f"{LARGE}{BOX}"), "a mask of 99999x99999 pixels at 0, 0, which is not within the image"),
        (XML.format(f'<polygon label="crop" points="1,2;3"/>{BOX}'), "has no points (x,y;x,y;...)"),
        (XML.format(f'<box label="crop" xtl="nan"/>{BOX}'), "has no xtl (a number)"),
        (XML.format(BOX).replace("</image>", '</image><track id="0"/>'), "tracks of videos are not read"),
    ],
)
def test_fault_in_cvat_xml_is_reported(content: str, sentence: str, tmp_path: Path) -> None:
    result = import_folder(source(tmp_path, content, "annotations.xml"))
    told = [line for loss in result.account["losses"] for line in (loss["message"], *loss["examples"])]
    assert any(sentence in line for line in told), told
    assert int((result.masks["a"] == 1).sum()) == 16


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (XML.format(BOX)[:-20], "is damaged or ends too early"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + XML.format(BOX), "declares a document type"),
    ],
)
def test_xml_that_cannot_be_read_is_an_error(content: str, sentence: str, tmp_path: Path, capsys: Any) -> None:
    assert f"annotations.xml {sentence}" in error_of(capsys, source(tmp_path, content, "annotations.xml"))


def supervisely(root: Path, meta: str, *objects: Table) -> Path:
    """Write a project with one image: a box of 16 pixels, and other objects before it."""
    photograph(root / "fields/img/a.png")
    (root / "meta.json").write_text(meta)
    corners = {"exterior": [[0, 0], [3, 3]], "interior": []}
    box = {"classTitle": "crop", "geometryType": "rectangle", "points": corners}
    (root / "fields/ann").mkdir()
    table = {"size": {"height": 30, "width": 40}, "objects": [*objects, box]}
    (root / "fields/ann/a.png.json").write_text(json.dumps(table))
    return root


META = json.dumps({"classes": [{"title": "crop", "color": "#00a000"}], "tags": []})


@pytest.mark.parametrize("data", ["!", base64.b64encode(zlib.compress(b"no PNG")).decode()])
def test_damaged_bitmap_of_supervisely_is_reported(data: str, tmp_path: Path) -> None:
    bitmap = {"classTitle": "crop", "geometryType": "bitmap", "bitmap": {"origin": [0, 0], "data": data}}
    result = import_folder(supervisely(tmp_path / "source", META, bitmap))
    (loss,) = result.losses("unusable region")
    assert "crop 1 has a damaged" in loss["examples"][0]
    assert int((result.masks["a"] == 1).sum()) == 16


@pytest.mark.parametrize("meta", [META[:-9], '{"classes": [{"title": 3}]}'])
def test_damaged_class_list_of_supervisely_is_reported_and_costs_no_label(meta: str, tmp_path: Path) -> None:
    result = import_folder(supervisely(tmp_path / "source", meta))
    (loss,) = result.losses("unreadable annotations")
    assert loss["message"].startswith("the list of classes cannot be read")
    assert loss["examples"][0].startswith("meta.json ")
    assert result.classes == ("background", "crop")
    assert int((result.masks["a"] == 1).sum()) == 16
