"""Conversion of COCO's annotations on hand-made cases: two overlapping things, stuff, a crowd and void."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as rle

from trainer.commands import prepare_coco as command
from trainer.data.classes_file import PUBLIC, read_classes
from trainer.data.coco.coco_annotations import AnnotatedImage
from trainer.data.coco.coco_classes import coco_values
from trainer.data.coco.coco_masks import AnnotationSource, instances_mask, panoptic_mask, prepare_coco
from trainer.data.dataset import DatasetError
from trainer.data.decode import ImageError
from trainer.data.readers.file_layouts import THING_IDS
from trainer.data.readers.layouts import open_dataset

# pycocotools implements __array__ without the `copy` argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PERSON, DOG, TOOTHBRUSH, GRASS = 1, 18, 90, 193
IMAGE = {"id": 7, "file_name": "000000000007.jpg", "height": 6, "width": 8}
NAMES = read_classes(PUBLIC / "coco.toml")[0].names[1:]
CATEGORIES: list[dict[str, Any]] = [
    {"id": key, "name": name, "isthing": 1} for key, name in zip(THING_IDS, NAMES, strict=True)
]
STUFF = [{"id": 124, "name": "grass"}, {"id": 183, "name": "other"}]
VALUES = coco_values(Path("nowhere"))

LARGE: dict[str, Any] = {"id": 1, "image_id": 7, "category_id": PERSON, "area": 24, "iscrowd": 0}
LARGE_POLYGON = {"segmentation": [[0, 0, 6, 0, 6, 4, 0, 4]]}
SMALL = {
    "id": 2,
    "image_id": 7,
    "category_id": DOG,
    "area": 4,
    "iscrowd": 0,
    "segmentation": [[2, 1, 4, 1, 4, 3, 2, 3]],
}


def expected_mask(person: bool = True) -> npt.NDArray[np.uint8]:
    """Person in rows 0-3, columns 0-5; dog over it in rows 1-2, columns 2-3 (COCO's id 18 is class 17)."""
    mask_HW = np.zeros((6, 8), dtype=np.uint8)
    mask_HW[:4, :6] = person
    mask_HW[1:3, 2:4] = 17
    return mask_HW


def draw(annotations: list[dict[str, Any]]) -> npt.NDArray[Any]:
    return instances_mask(AnnotatedImage("000000000007", (6, 8), annotations), VALUES)


def write_json(path: Path, table: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A byte-order mark, as some tools write it.
    path.write_text(json.dumps(table), encoding="utf-8-sig")


def test_smaller_thing_is_drawn_on_top_in_any_order() -> None:
    for things in ([LARGE | LARGE_POLYGON, SMALL], [SMALL, LARGE | LARGE_POLYGON]):
        assert np.array_equal(draw(things), expected_mask())


@pytest.mark.parametrize("packed", [False, True])
def test_crowds_are_read_from_run_lengths(packed: bool) -> None:
    area_HW = np.zeros((6, 8), dtype=np.uint8, order="F")
    area_HW[:4, :6] = 1
    runs = [0, *([4, 2] * 6), 12]
    segmentation = rle.encode(area_HW) if packed else {"size": [6, 8], "counts": [*runs[:-2], runs[-2] + runs[-1]]}
    assert np.array_equal(draw([LARGE | {"iscrowd": 1, "segmentation": segmentation}, SMALL]), expected_mask())


def panoptic_png(root: Path, part: str) -> Path:
    """Write segments: person 300, dog 70000, grass 5; the last column is void."""
    segment_HW = np.full((6, 8), 5)
    segment_HW[:4, :6] = 300
    segment_HW[1:3, 2:4] = 70000
    segment_HW[:, 7] = 0
    color_HWC = np.stack([segment_HW & 255, segment_HW >> 8 & 255, segment_HW >> 16], axis=2).astype(np.uint8)
    path = root / "annotations" / f"panoptic_{part}" / "000000000007.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(color_HWC).save(path)
    return path


SEGMENTS = [{"id": 300, "category_id": PERSON}, {"id": 70000, "category_id": DOG}, {"id": 5, "category_id": GRASS}]


def with_void(mask_HW: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    mask_HW[:, 7] = 255
    return mask_HW


def test_panoptic_segments_map_to_classes_and_void_is_ignored(tmp_path: Path) -> None:
    png = panoptic_png(tmp_path, "val2017")
    assert np.array_equal(panoptic_mask(png, SEGMENTS, VALUES), with_void(expected_mask()))
    with pytest.raises(ImageError, match="segment 70000 is not in the JSON"):
        panoptic_mask(png, [SEGMENTS[0], SEGMENTS[2]], VALUES)


def write_source(root: Path, source: AnnotationSource, part: str) -> None:
    annotations = root / "annotations"
    if source == "panoptic":
        panoptic_png(root, part)
        segments = {"image_id": 7, "file_name": "000000000007.png", "segments_info": SEGMENTS}
        grass = {"id": GRASS, "name": "grass", "isthing": 0}
        table = {"images": [IMAGE], "annotations": [segments], "categories": [*CATEGORIES, grass]}
        write_json(annotations / f"panoptic_{part}.json", table)
        return
    things = [LARGE | LARGE_POLYGON, SMALL]
    write_json(
        annotations / f"instances_{part}.json", {"images": [IMAGE], "annotations": things, "categories": CATEGORIES}
    )
    if source == "stuffthings":
        # Grass in columns 0-6, and category 183 "other", which COCO-Stuff uses for things.
        grass = {"image_id": 7, "category_id": 124, "area": 42, "segmentation": [[0, 0, 7, 0, 7, 6, 0, 6]]}
        other = {"image_id": 7, "category_id": 183, "area": 48, "segmentation": [[0, 0, 8, 0, 8, 6, 0, 6]]}
        table = {"images": [IMAGE], "annotations": [grass, other], "categories": STUFF}
        write_json(annotations / f"stuff_{part}.json", table)


@pytest.mark.parametrize("source", ["panoptic", "instances", "stuffthings"])
def test_masks_are_written_once_and_read_back(
    source: AnnotationSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "val2017").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "val2017/000000000007.jpg")
    write_source(tmp_path, source, "val2017")
    parser = argparse.ArgumentParser()
    command.add(parser)
    assert command.run(parser.parse_args([str(tmp_path), "--from", source])) == 0
    assert "1 mask written, 0 already existed" in capsys.readouterr().out
    dataset = open_dataset(tmp_path)
    expected = expected_mask() if source == "instances" else with_void(expected_mask())
    assert np.array_equal(dataset.read_pair(dataset.split("val")[0])[1], expected)
    before = (tmp_path / "masks/000000000007.png").stat().st_mtime_ns
    assert prepare_coco(tmp_path, source) == (0, 1, 0, ("background", *NAMES))
    assert not (tmp_path / "classes.toml").exists()
    assert (tmp_path / "masks/000000000007.png").stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["000000000007.png"]


def test_pixel_maps_are_converted_to_masks(tmp_path: Path) -> None:
    folder = tmp_path / "stuffthingmaps" / "train2017"
    folder.mkdir(parents=True)
    stored = np.array([[PERSON - 1, TOOTHBRUSH - 1, 123, 255]], dtype=np.uint8)
    Image.fromarray(stored).save(folder / "000000000007.png")
    assert prepare_coco(tmp_path, "stuffthings")[:3] == (1, 0, 0)
    mask = Image.open(tmp_path / "masks/000000000007.png")
    assert np.asarray(mask).tolist() == [[1, 80, 0, 255]]
    assert np.asarray(mask.convert("RGB"))[0, 0].tolist() == [220, 20, 60]


def test_missing_or_invalid_annotations_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"annotations/panoptic_\{train,val\}2017\.json\); unpack them there, and rename"
    ):
        prepare_coco(tmp_path, "panoptic")
    write_json(tmp_path / "annotations/instances_val2017.json", {"images": []})
    with pytest.raises(DatasetError, match=r"instances_val2017\.json: has no annotations \(a list"):
        prepare_coco(tmp_path, "instances")
    (tmp_path / "annotations/instances_val2017.json").write_text("{")
    with pytest.raises(DatasetError, match=r"instances_val2017\.json: cannot be read"):
        prepare_coco(tmp_path, "instances")
