"""Own annotations in COCO's format: their categories are the classes, and every fault is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as rle

from trainer.__main__ import main
from trainer.data.coco.coco_masks import prepare_coco
from trainer.data.coco.coco_regions import RegionError, region
from trainer.data.dataset import DatasetError
from trainer.data.readers.layouts import open_dataset

# pycocotools implements __array__ without the `copy` argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (6, 8)
POTHOLE, CRACK = 1, 2
CATEGORIES = [{"id": POTHOLE, "name": "pothole"}, {"id": CRACK, "name": "crack"}]
LEFT = {"id": 1, "image_id": 7, "category_id": CRACK, "area": 24, "segmentation": [[0, 0, 4, 0, 4, 6, 0, 6]]}
CORNER = {"id": 2, "image_id": 7, "category_id": POTHOLE, "area": 4, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
Table = dict[str, Any]


def table(*annotations: Table, **changes: Any) -> Table:
    image = {"id": 7, "file_name": "road.jpg", "height": 6, "width": 8}
    return {"images": [image], "annotations": list(annotations), "categories": CATEGORIES} | changes


def write(root: Path, contents: Table, name: str = "instances_train2017") -> Path:
    (root / "annotations").mkdir(exist_ok=True)
    (root / f"annotations/{name}.json").write_text(json.dumps(contents))
    (root / "train2017").mkdir(exist_ok=True)
    Image.new("RGB", SHAPE[::-1]).save(root / "train2017/road.jpg")
    return root


def expected(background: int = 0, pothole: int = 1, crack: int = 2) -> npt.NDArray[np.int64]:
    mask_HW = np.full(SHAPE, background)
    mask_HW[:, :4] = crack
    mask_HW[:2, :2] = pothole
    return mask_HW


def train_mask(root: Path) -> npt.NDArray[np.int64]:
    dataset = open_dataset(root)
    return dataset.read_pair(dataset.split("train")[0])[1]


def error(root: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        prepare_coco(root, "instances")
    return str(caught.value)


def test_categories_of_the_file_are_the_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, table(CORNER, LEFT))
    assert main(["prepare-coco", str(tmp_path), "--from", "instances"]) == 0
    assert "1 mask written, 0 already existed\n3 classes: background, pothole, crack\n" in capsys.readouterr().out
    dataset = open_dataset(tmp_path)
    assert dataset.taxonomy.names == ("background", "pothole", "crack")
    assert dataset.taxonomy.colors == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert np.array_equal(train_mask(tmp_path), expected())
    assert prepare_coco(tmp_path, "instances")[:2] == (0, 1)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("annotations/instances_train.json", "instances"),
        ("train/_annotations.coco.json", "instances"),
        ("result.json", "instances"),
        ("annotations/panoptic_train.json", "panoptic"),
    ],
)
def test_annotations_of_other_tools_lead_to_prepare_coco(name: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "my data" / name
    path.parent.mkdir(parents=True)
    (path.parent / "a.json").write_text("[]")
    path.write_text(json.dumps(table(LEFT)))
    with pytest.raises(DatasetError) as caught:
        open_dataset(tmp_path / "my data")
    assert f"{name} has COCO's format: rename it to annotations/{form}_train2017.json" in str(caught.value)
    assert str(caught.value).endswith(f"python -m trainer prepare-coco '{tmp_path / 'my data'}' --from {form}")


def test_classes_follow_the_order_of_the_ids(tmp_path: Path) -> None:
    write(tmp_path, table(CORNER | {"category_id": 9}, LEFT, categories=[{"id": 9, "name": "rut"}, *CATEGORIES]))
    prepare_coco(tmp_path, "instances")
    assert open_dataset(tmp_path).taxonomy.names == ("background", "pothole", "crack", "rut")
    assert np.array_equal(train_mask(tmp_path), expected(pothole=3))


def test_category_called_background_is_class_0(tmp_path: Path) -> None:
    write(tmp_path, table(CORNER, LEFT, categories=[{"id": 0, "name": "_background_"}, *CATEGORIES]))
    prepare_coco(tmp_path, "instances")
    assert open_dataset(tmp_path).taxonomy.names == ("background", "pothole", "crack")
    assert np.array_equal(train_mask(tmp_path), expected())


def test_unused_super_category_of_roboflow_is_no_class(tmp_path: Path) -> None:
    group = {"id": 0, "name": "damage", "supercategory": "none"}
    write(
        tmp_path, table(CORNER, LEFT, categories=[group, *(each | {"supercategory": "damage"} for each in CATEGORIES)])
    )
    prepare_coco(tmp_path, "instances")
    assert open_dataset(tmp_path).taxonomy.names == ("background", "pothole", "crack")


def test_unused_category_that_is_its_own_super_category_is_a_class(tmp_path: Path) -> None:
    write(tmp_path, table(CORNER, categories=[each | {"supercategory": each["name"]} for each in CATEGORIES]))
    prepare_coco(tmp_path, "instances")
    assert open_dataset(tmp_path).taxonomy.names == ("background", "pothole", "crack")


def test_subset_of_cocos_categories_is_an_own_list(tmp_path: Path) -> None:
    subset = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    write(tmp_path, table(CORNER, LEFT | {"category_id": 18}, categories=subset))
    prepare_coco(tmp_path, "instances")
    assert open_dataset(tmp_path).taxonomy.names == ("background", "person", "dog")
    assert np.array_equal(train_mask(tmp_path), expected())


def test_existing_classes_file_is_followed_by_name(tmp_path: Path) -> None:
    lines = [f'[[classes]]\nname = "{name}"\ncolor = [0, 0, 0]\n' for name in ("crack", "background", "pothole")]
    (tmp_path / "classes.toml").write_text("".join(lines))
    write(tmp_path, table(CORNER, LEFT))
    prepare_coco(tmp_path, "instances")
    assert np.array_equal(train_mask(tmp_path), expected(background=1, pothole=2, crack=0))


def test_classes_file_may_use_another_unicode_form_of_a_name(tmp_path: Path) -> None:
    lines = [f'[[classes]]\nname = "{name}"\ncolor = [0, 0, 0]\n' for name in ("background", "crack", "caf\u00e9")]
    (tmp_path / "classes.toml").write_text("".join(lines), encoding="utf-8")
    categories = [{"id": POTHOLE, "name": "cafe\u0301"}, CATEGORIES[1]]
    write(tmp_path, table(CORNER, LEFT, categories=categories))
    prepare_coco(tmp_path, "instances")
    assert np.array_equal(train_mask(tmp_path), expected(pothole=2, crack=1))


def test_class_that_the_classes_file_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "classes.toml").write_text('[[classes]]\nname = "background"\ncolor = [0, 0, 0]\n')
    assert "classes.toml: lacks the classes 'crack', 'pothole'" in error(write(tmp_path, table(CORNER, LEFT)))


def test_classes_file_that_stores_255_as_a_class_is_followed(tmp_path: Path) -> None:
    values = {"background": 0, "crack": 255, "pothole": 7}
    lines = [f'[[classes]]\nname = "{name}"\ncolor = [0, 0, 0]\nvalues = [{key}]\n' for name, key in values.items()]
    (tmp_path / "classes.toml").write_text("".join(lines))
    write(tmp_path, table(CORNER, LEFT))
    prepare_coco(tmp_path, "instances")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "masks/road.png")), expected(pothole=7, crack=255))
    assert np.array_equal(train_mask(tmp_path), expected(pothole=2, crack=1))
    write(tmp_path, table(), "panoptic_train2017")
    with pytest.raises(DatasetError, match="ignores no value"):
        prepare_coco(tmp_path, "panoptic")


def test_masks_without_a_class_list_are_not_kept(tmp_path: Path) -> None:
    write(tmp_path, table(CORNER, LEFT))
    (tmp_path / "masks").mkdir()
    Image.new("L", SHAPE[::-1]).save(tmp_path / "masks/road.png")
    assert "masks: has masks, but no " in error(tmp_path)


def test_own_panoptic_segments_are_classes_and_void_is_ignored(tmp_path: Path) -> None:
    segment_HW = np.zeros(SHAPE, np.uint8)
    segment_HW[:, :4] = 5
    segment_HW[:2, :2] = 6
    segments = [{"id": 5, "category_id": CRACK}, {"id": 6, "category_id": POTHOLE}]
    annotation = {"image_id": 7, "file_name": "road_panoptic.png", "segments_info": segments}
    write(tmp_path, table(annotation), "panoptic_train2017")
    (tmp_path / "annotations/panoptic_train2017").mkdir()
    color_HWC = np.dstack([segment_HW, np.zeros_like(segment_HW), np.zeros_like(segment_HW)])
    Image.fromarray(color_HWC).save(tmp_path / "annotations/panoptic_train2017/road_panoptic.png")
    prepare_coco(tmp_path, "panoptic")
    assert open_dataset(tmp_path).taxonomy.names == ("pothole", "crack")
    assert np.array_equal(train_mask(tmp_path), expected(background=255, pothole=0, crack=1))
    write(tmp_path, table(annotation | {"segments_info": [{"id": 5, "category_id": 3}]}), "panoptic_train2017")
    with pytest.raises(DatasetError, match="road has the category 3, which the file does not list"):
        prepare_coco(tmp_path, "panoptic")


def test_stuffthings_needs_cocos_categories(tmp_path: Path) -> None:
    write(write(tmp_path, table(LEFT)), table(), "stuff_train2017")
    with pytest.raises(DatasetError, match="categories are not COCO's 80; use --from instances"):
        prepare_coco(tmp_path, "stuffthings")


def test_more_than_255_categories_give_16_bit_masks(tmp_path: Path) -> None:
    categories = [{"id": key, "name": f"class {key}"} for key in range(1, 301)]
    write(tmp_path, table(CORNER, LEFT | {"category_id": 300}, categories=categories))
    prepare_coco(tmp_path, "instances")
    assert np.array_equal(train_mask(tmp_path), expected(crack=300))


def test_annotations_without_an_image_are_counted_and_named(tmp_path: Path) -> None:
    others = [LEFT | {"id": key, "image_id": 8} for key in range(100, 130)]
    said = error(write(tmp_path, table(LEFT | {"image_id": "7"}, CORNER | {"image_id": None}, *others)))
    assert "1 annotation matches no image: annotation 1 (image_id '7'); an id is text in one list and a number" in said
    assert "31 annotations match no image: annotation 2 (image_id None), annotation 100 (image_id 8), " in said
    assert "and 11 more; image_id must be the id of an image" in said
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": None}, "has no segmentation, only a box"),
        ({"segmentation": []}, "has an empty segmentation"),
        ({"segmentation": [[]]}, "has a polygon of 0 numbers"),
        ({"segmentation": [[0, 0, 4, 4]]}, "has a polygon of 4 numbers"),
        ({"segmentation": [[0, 0, 4, 0, 4, 6], [0, 0, 4, 4]]}, "has a polygon of 4 numbers"),
        ({"segmentation": [[0, 0, 4, 0, 4, 6, 1]]}, "has a polygon of 7 numbers"),
        ({"segmentation": [0, 0, 4, 0, 4, 6]}, "is neither a list of polygons nor run lengths"),
        ({"segmentation": [[0, 0, "4", 0, 4, 6]]}, "coordinates that are not finite numbers"),
        ({"segmentation": [[0, 0, float("nan"), 0, 4, 6]]}, "coordinates that are not finite numbers"),
        ({"segmentation": {"size": [8, 6], "counts": [48]}}, r"run lengths for size [8, 6], and its image has [6, 8]"),
        ({"segmentation": {"size": [6, 8], "counts": [10, 10]}}, "run lengths for 20 of 48 pixels"),
        ({"segmentation": {"size": [6, 8], "counts": ""}}, "run lengths for 0 of 48 pixels"),
        ({"segmentation": {"size": [6, 8], "counts": [60, -12]}}, "run lengths that are not numbers of pixels"),
        ({"segmentation": {"size": [6, 8]}}, "run lengths that are not numbers of pixels"),
        ({"category_id": 3}, "has the category 3, which the file does not list"),
        ({"category_id": None}, "has the category None"),
    ],
)
def test_annotation_that_cannot_be_drawn_is_named(tmp_path: Path, change: Table, message: str) -> None:
    said = error(write(tmp_path, table(CORNER, LEFT | change)))
    assert "instances_train2017.json: 1 annotation cannot be drawn: annotation 1 of road" in said
    assert message in said


def test_missing_keys_are_named(tmp_path: Path) -> None:
    bare = {key: value for key, value in LEFT.items() if key not in {"area", "id", "segmentation"}}
    assert "annotation number 0 of road has no segmentation, only a box" in error(write(tmp_path, table(bare)))
    write(tmp_path, table(LEFT, categories=None))
    assert "instances_train2017.json: has no categories (a list of objects)" in error(tmp_path)
    write(tmp_path, table(LEFT, images=[{"id": 7, "file_name": "road.jpg"}]))
    assert "1 image has no height and width in pixels: road.jpg" in error(tmp_path)
    write(tmp_path, table(LEFT, images=[{"file_name": "road.jpg"}]))
    assert "1 image has no id or no file_name: image number 0" in error(tmp_path)
    write(tmp_path, table(LEFT, categories=[*CATEGORIES, {"id": 1, "name": "again"}]))
    assert "1 category has the same id: id 1" in error(tmp_path)
    write(tmp_path, table(LEFT, categories=[*CATEGORIES, {"id": 3, "name": ""}]))
    assert "1 category has no number as id, or no name: category number 2" in error(tmp_path)
    assert not (tmp_path / "classes.toml").exists()


@pytest.mark.parametrize("area", [None, 0, "24"])
def test_area_is_measured_if_the_file_has_none(tmp_path: Path, area: Any) -> None:
    write(tmp_path, table(CORNER | {"area": area}, LEFT | {"area": area}))
    prepare_coco(tmp_path, "instances")
    assert np.array_equal(train_mask(tmp_path), expected())


def test_images_without_annotation_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [*table()["images"], {"id": 8, "file_name": r"day 2\street.jpg", "height": 6, "width": 8}]
    write(tmp_path, table(LEFT, images=images))
    assert main(["prepare-coco", str(tmp_path), "--from", "instances"]) == 0
    assert "1 image has no annotation: background only in the mask" in capsys.readouterr().out
    assert (tmp_path / "masks/street.png").exists()
    write(tmp_path, table())
    assert "no image has an annotation" in error(tmp_path)


def test_panoptic_images_without_annotation_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png = tmp_path / "annotations/panoptic_train2017/road.png"
    png.parent.mkdir(parents=True)
    Image.new("RGB", (8, 6), (5, 0, 0)).save(png)
    images = [*table()["images"], {"id": 8, "file_name": "street.jpg", "height": 6, "width": 8}]
    segments = {"id": 1, "image_id": 7, "file_name": "road.png", "segments_info": [{"id": 5, "category_id": CRACK}]}
    write(tmp_path, table(segments, images=images), "panoptic_train2017")
    assert main(["prepare-coco", str(tmp_path), "--from", "panoptic"]) == 0
    assert "1 image has no annotation: no mask was written" in capsys.readouterr().out
    write(tmp_path, table(images=images), "panoptic_train2017")
    with pytest.raises(DatasetError, match="no image has an annotation"):
        prepare_coco(tmp_path, "panoptic")


def test_images_that_would_have_one_mask_are_named(tmp_path: Path) -> None:
    write(write(tmp_path, table(LEFT)), table(CORNER), "instances_val2017")
    assert "1 mask would belong to two images, such as road" in error(tmp_path)


def test_parts_must_list_the_same_categories(tmp_path: Path) -> None:
    swapped = [{"id": CRACK, "name": "pothole"}, {"id": POTHOLE, "name": "crack"}]
    write(write(tmp_path, table(LEFT)), table(CORNER, categories=swapped), "instances_val2017")
    assert "instances_val2017.json: category 1 is 'crack', and 'pothole' in instances_train2017.json" in error(tmp_path)


def test_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    write(tmp_path, table(LEFT, categories=[*CATEGORIES, {"id": 3, "name": "crack"}]))
    prepare_coco(tmp_path, "instances")
    assert open_dataset(tmp_path).taxonomy.names == ("background", "pothole", "crack")


@pytest.mark.parametrize("seed", range(5))
def test_compressed_run_lengths_equal_those_of_pycocotools(seed: int) -> None:
    area_HW = np.random.default_rng(seed).random((37, 53)) > 0.2 * seed
    counts = rle.encode(np.asfortranarray(area_HW.astype(np.uint8)))["counts"]
    assert isinstance(counts, bytes)
    assert np.array_equal(region({"size": [37, 53], "counts": counts.decode()}, (37, 53)), area_HW)


@pytest.mark.parametrize("counts", ["o" * 40, "zzz", "é", "0`1 "])
def test_broken_compressed_run_lengths_are_rejected(counts: str) -> None:
    with pytest.raises(RegionError, match="run lengths"):
        region({"size": [6, 8], "counts": counts}, SHAPE)
