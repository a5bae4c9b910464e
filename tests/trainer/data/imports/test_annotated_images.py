"""How annotations find their images, and which of several annotations counts."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.data.imports.imported import import_folder, photograph
from trainer.data.imports.annotation_files.image_spellings import image_spellings
from trainer.data.imports.annotation_files.tools.brush_stream import brush_mask
from trainer.data.imports.drawing.rasterise import ShapeError

# pycocotools implements __array__ without the `copy` argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def labelme(path: Path, named: str, label: str = "crop", **changes: Any) -> None:
    shapes = [{"label": label, "points": [[0, 0], [3, 3]], "shape_type": "rectangle"}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"shapes": shapes, "imagePath": named, "imageData": None} | changes))


def coco(path: Path, images: list[str], annotations: list[tuple[int, str, int, float]]) -> None:
    """Squares (image, class, side, area) at the upper left corner."""
    names = sorted({name for _, name, _, _ in annotations})
    table = {
        "images": [{"id": i, "file_name": name, "height": 30, "width": 40} for i, name in enumerate(images)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": names.index(name),
                "segmentation": [[0, 0, side, 0, side, side, 0, side]],
                "area": area,
            }
            for i, (image, name, side, area) in enumerate(annotations)
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table))


@pytest.mark.parametrize("named", ["C:\\photos\\a.png", "/home/x/a.png", "../../a.png", "https://host/p/a.png?x=1"])
def test_image_is_found_by_its_name_within_the_source(named: str, tmp_path: Path) -> None:
    photograph(tmp_path / "source/photographs/a.png")
    labelme(tmp_path / "source/labels/a.json", named)
    assert list(import_folder(tmp_path / "source").masks) == ["a"]


def test_equal_names_in_folders_are_told_apart_by_the_annotation_file(tmp_path: Path) -> None:
    for folder, label in (("one", "crop"), ("two", "weed")):
        photograph(tmp_path / f"source/{folder}/a.png")
        labelme(tmp_path / f"source/{folder}/a.json", "a.png", label)
    result = import_folder(tmp_path / "source")
    assert {name: result.classes[mask_HW[0, 0]] for name, mask_HW in result.masks.items()} == {
        "one/a": "crop",
        "two/a": "weed",
    }


def test_annotations_of_two_folders_do_not_share_one_file(tmp_path: Path) -> None:
    photograph(tmp_path / "source/images/a.png")
    photograph(tmp_path / "source/images/b.png")
    coco(tmp_path / "source/labels.json", ["x/a.png", "y/a.png", "b.png"], [(0, "crop", 4, 16), (2, "crop", 4, 16)])
    result = import_folder(tmp_path / "source")
    assert list(result.masks) == ["b"]
    assert result.losses("shared image")[0]["examples"] == ["images/a.png: x/a.png and y/a.png"]


def test_annotation_without_image_is_reported_and_another_suffix_is_found(tmp_path: Path) -> None:
    photograph(tmp_path / "source/b.webp")
    labelme(tmp_path / "source/a.json", "a.png")
    labelme(tmp_path / "source/b.json", "b.jpg")
    result = import_folder(tmp_path / "source")
    assert list(result.masks) == ["b"]
    (loss,) = result.losses("annotation without image")
    assert (loss["examples"], loss["remedy"]) == (["a.json: a.png"], "add the image")
    assert result.losses("other suffix")[0]["examples"] == ["b.json: b.jpg is b.webp"]


def test_image_within_a_labelme_file_is_used_if_there_is_no_other(tmp_path: Path) -> None:
    encoded = BytesIO()
    Image.new("RGB", (40, 30), (10, 20, 30)).save(encoded, "PNG")
    labelme(tmp_path / "source/a.json", "..\\a.jpg", imageData=base64.b64encode(encoded.getvalue()).decode())
    result = import_folder(tmp_path / "source")
    assert (result.root / "images/a.png").read_bytes() == encoded.getvalue()
    assert int((result.masks["a"] == 1).sum()) == 16


def test_labelme_pixels_of_the_label_ignore_are_ignored(tmp_path: Path) -> None:
    photograph(tmp_path / "source/a.png")
    labelme(tmp_path / "source/a.json", "a.png", "__ignore__")
    result = import_folder(tmp_path / "source")
    assert result.classes == ("background",)
    assert int((result.masks["a"] == 255).sum()) == 16


def test_smaller_region_of_coco_is_over_the_larger_one_whatever_the_order(tmp_path: Path) -> None:
    photograph(tmp_path / "source/a.png")
    coco(tmp_path / "source/labels.json", ["a.png"], [(0, "leaf", 4, 16), (0, "plant", 20, 400)])
    result = import_folder(tmp_path / "source")
    assert int((result.masks["a"] == result.classes.index("leaf")).sum()) == 16
    assert "the smaller one wins" in result.losses("overlap")[0]["message"]


def test_areas_say_whether_polygons_run_through_pixel_centres(tmp_path: Path) -> None:
    for name, area in (("continuous", 100), ("centres", 121)):
        photograph(tmp_path / f"{name}/a.png")
        coco(tmp_path / f"{name}/labels.json", ["a.png"], [(0, "crop", 10, area)])
        assert int((import_folder(tmp_path / name).masks["a"] == 1).sum()) == area


def test_splits_of_coco_are_those_of_its_folders_and_files(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        photograph(tmp_path / f"source/images/{name}2017/{name}.png")
        coco(tmp_path / f"source/annotations/instances_{name}2017.json", [f"{name}.png"], [(0, "crop", 4, 16)])
    splits = import_folder(tmp_path / "source").splits
    assert splits == {"labelled": ["train"], "val": ["val"], "test": ["test"]}


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [({}, {}, "new"), ({"ground_truth": True}, {}, "old"), ({}, {"was_cancelled": True}, "old")],
)
def test_ground_truth_or_newest_annotation_counts(
    older: dict[str, Any], newer: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    def annotation(label: str, when: str, **changes: Any) -> dict[str, Any]:
        value = {"x": 0, "y": 0, "width": 50, "height": 50, "rectanglelabels": [label]}
        return {"completed_by": 1, "updated_at": when, "result": [{"value": value}]} | changes

    photograph(tmp_path / "source/a.png")
    annotations = [annotation("new", "2026-02-01", **newer), annotation("old", "2026-01-01", **older)]
    table = [{"id": 1, "data": {"image": "a.png"}, "annotations": annotations}]
    (tmp_path / "source/tasks.json").write_text(json.dumps(table))
    assert import_folder(tmp_path / "source").classes == ("background", expected)


def test_shape_and_label_of_label_studio_can_be_two_results(tmp_path: Path) -> None:
    box = {"x": 0, "y": 0, "width": 10, "height": 10}
    results = [{"id": "r", "type": "rectangle", "value": box}, {"id": "r", "type": "labels", "value": box}]
    results[1]["value"] = box | {"labels": ["crop"]}
    photograph(tmp_path / "source/a.png")
    table = [{"id": 1, "data": {"text": "x", "image": "a.png"}, "annotations": [{"result": results}]}]
    (tmp_path / "source/tasks.json").write_text(json.dumps(table))
    result = import_folder(tmp_path / "source")
    assert int((result.masks["a"] == 1).sum()) == 4 * 3
    assert not result.losses("no label")


@pytest.mark.parametrize(
    ("written", "spelling"),
    [
        ("/data/upload/3/1a2b3c4d-field_1.png", "/data/upload/3/field_1.png"),
        ("/data/local-files/?d=photographs/field%202.jpg", "photographs/field 2.jpg"),
        ("s3://bucket/more/field%202.jpg", "/more/field 2.jpg"),
        ("images\\1a2b3c4d-field_1.png", "images\\1a2b3c4d-field_1.png"),
    ],
)
def test_paths_of_label_studio_have_other_spellings(written: str, spelling: str) -> None:
    assert spelling in image_spellings(written)


def test_brush_of_many_single_values_is_decoded() -> None:
    # 2 pixels: 8 values of 8 bits; count sizes 3, 4, 8 and 16 bits; one list of 8 values, the second pixel opaque.
    header = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    values = "".join(f"{value:08b}" for value in (9, 9, 9, 0, 9, 9, 9, 128))
    bits = f"{header}000{7:03b}{values}"
    stream = int(bits + "0" * (-len(bits) % 8), 2).to_bytes((len(bits) + 7) // 8)
    assert np.array_equal(brush_mask(stream, (1, 2)).mask_HW, [[False, True]])
    with pytest.raises(ShapeError, match="has a brush that ends too early"):
        brush_mask(stream[:-2], (1, 2))
