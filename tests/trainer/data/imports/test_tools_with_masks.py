"""Formats of tools that write mask files: CVAT, datumaro, labelme, Roboflow, Segments.ai, Hugging Face, and our own."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.data.imports.imported import IGNORE, error_of, import_folder, photograph, save_mask, truth
from tests.trainer.layouts import write_layout
from trainer.taxonomy import distinct_colors

PALETTE = [part for color in distinct_colors(256) for part in color]
CVAT_COLORS = {"background": (0, 0, 0), "pot hole": (250, 50, 83), "crack": (51, 221, 255)}
Captured = pytest.CaptureFixture[str]


def labelmap(colors: dict[str, Any]) -> str:
    lines = [f"{name}:{','.join(map(str, color))}::" for name, color in colors.items()]
    return "\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n"


def write_cvat(root: Path) -> None:
    """The form of CVAT's "Segmentation mask 1.1"."""
    colors = np.array(list(CVAT_COLORS.values()), np.uint8)
    photograph(root / "JPEGImages/day 1/road one.PNG")
    save_mask(root / "SegmentationClass/day 1/road one.png", colors[truth()])
    save_mask(root / "SegmentationObject/day 1/road one.png", colors[truth()])
    photograph(root / "JPEGImages/road two.jpg", seed=1)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("day 1/road one\n")
    (root / "labelmap.txt").write_text(labelmap(CVAT_COLORS))


@pytest.mark.parametrize("packed", [False, True])
def test_cvat_mask_as_folder_and_zip(tmp_path: Path, *, packed: bool) -> None:
    source = tmp_path / "task"
    write_cvat(source)
    if packed:
        with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
            for path in source.rglob("*"):
                archive.write(path, path.relative_to(source))
        source = tmp_path / "task.zip"
    result = import_folder(source)
    assert result.account["format"] == "voc"
    assert result.classes == tuple(CVAT_COLORS)
    assert [tuple(entry["color"]) for entry in result.account["classes"]] == list(CVAT_COLORS.values())
    np.testing.assert_array_equal(result.masks["day 1/road one"], truth())
    assert result.splits == {"labelled": ["day 1/road one"], "unlabelled": ["road two"]}
    files = {entry["file"]: entry["as"] for entry in result.account["files"]}
    assert files["labelmap.txt"] == "list of classes"
    assert files["SegmentationObject/day 1/road one.png"] == "not used"


def test_datumaro_labelmap_without_colours(tmp_path: Path) -> None:
    source, ids_HW = tmp_path / "source", truth()
    photograph(source / "JPEGImages/a.jpg")
    save_mask(source / "SegmentationClass/a.png", ids_HW, PALETTE)
    (source / "labelmap.txt").write_text(labelmap(dict.fromkeys(("background", "leaf", "stem"), ())))
    result = import_folder(source)
    assert result.classes == ("background", "leaf", "stem")
    np.testing.assert_array_equal(result.masks["a"], ids_HW)


def test_labelme_voc_folder(tmp_path: Path) -> None:
    source, ids_HW = tmp_path / "source", truth()
    ids_HW[0] = 255
    photograph(source / "JPEGImages/a.jpg")
    save_mask(source / "SegmentationClass/a.png", ids_HW, PALETTE)
    (source / "class_names.txt").write_text("__ignore__\n_background_\nleaf\nstem\n")
    result = import_folder(source)
    assert result.classes == ("background", "leaf", "stem")
    np.testing.assert_array_equal(result.masks["a"], np.where(ids_HW == 255, IGNORE, ids_HW))


def test_voc_folder_without_list_of_classes_is_read_as_folders(tmp_path: Path) -> None:
    source = tmp_path / "source"
    photograph(source / "JPEGImages/a.jpg")
    save_mask(source / "SegmentationClass/a.png", truth(), PALETTE)
    result = import_folder(source)
    assert result.account["format"] == "masks"
    np.testing.assert_array_equal(result.masks["a"], truth())


def test_roboflow_masks_with_different_lists_in_two_splits(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for split, names in (("train", "background leaf stem"), ("valid", "background stem leaf"), ("test", "background")):
        listed = "".join(f"{value}, {name}\n" for value, name in enumerate(names.split()))
        photograph(source / f"{split}/{split}_jpg.rf.1a2b.jpg")
        (source / f"{split}/_classes.csv").write_text(f"Pixel Value, Class\n{listed}")
        if split != "test":
            save_mask(source / f"{split}/{split}_jpg.rf.1a2b_mask.png", truth())
    photograph(source / "train/bare_jpg.rf.3c.jpg")
    save_mask(source / "train/alone_mask.png", truth())
    result = import_folder(source)
    assert result.account["format"] == "roboflow-masks"
    assert result.classes == ("background", "leaf", "stem")
    np.testing.assert_array_equal(result.masks["train_jpg.rf.1a2b"], truth())
    np.testing.assert_array_equal(result.masks["valid_jpg.rf.1a2b"], np.array([0, 2, 1])[truth()])
    assert {split: len(names) for split, names in result.splits.items()} == {
        "labelled": 1,
        "unlabelled": 1,
        "val": 1,
        "test": 1,
    }
    assert result.losses("annotation without image")[0]["examples"] == ["train/alone_mask.png"]


def segments_release(**label: Any) -> dict[str, Any]:
    bitmap = {"url": "https://bucket.example/labels/0a1b.png"}
    annotations = [{"id": 1, "category_id": 7}, {"id": 300, "category_id": 3}]
    attributes = {"segmentation_bitmap": bitmap, "annotations": annotations} | label
    image = {"image": {"url": "https://bucket.example/x/9f.jpg?key=1"}}
    labels: dict[str, Any] = {"ground-truth": {"label_status": "LABELED", "attributes": attributes}, "draft": None}
    samples = [{"name": "field.jpg", "attributes": image, "labels": labels}]
    categories = [{"id": 7, "name": "leaf", "color": [0, 200, 0]}, {"id": 3, "name": "stem"}]
    return {"name": "v1", "dataset": {"task_attributes": {"categories": categories}, "samples": samples}}


@pytest.mark.parametrize("form", ["download", "cache"])
def test_segments_ai(tmp_path: Path, form: str) -> None:
    source, ids_HW = tmp_path / "source", truth()
    segment_HW = np.array([0, 1, 300], np.uint32)[ids_HW]
    photograph(source / "field.jpg")
    if form == "download":
        rgba_HW4 = segment_HW[..., None].view(np.uint8).copy()
        rgba_HW4[..., 3] = 255
        save_mask(source / "labels/0a1b.png", rgba_HW4)
    else:
        save_mask(source / "field_label_ground-truth.png", segment_HW.astype(np.uint16))
    (source / "v1.json").write_text(json.dumps(segments_release()))
    result = import_folder(source)
    assert result.account["format"] == "segments-ai"
    assert result.classes == ("background", "stem", "leaf")
    np.testing.assert_array_equal(result.masks["field"], np.array([0, 2, 1])[ids_HW])


def test_segments_ai_says_what_is_missing(tmp_path: Path, capsys: Captured) -> None:
    source = tmp_path / "source"
    (source / "labels").mkdir(parents=True)
    (source / "v1.json").write_text(json.dumps(segments_release()))
    assert "contains no images" in error_of(capsys, source)
    photograph(source / "field.jpg")
    save_mask(source / "labels/0a1b.png", np.full((30, 40), 5, np.uint8))
    result = import_folder(source)
    assert result.losses("foreign id")[0]["examples"] == ["labels/0a1b.png: 5"]
    assert result.splits == {"unlabelled": ["field"]}
    (source / "v1.json").write_text(json.dumps(segments_release(annotations=[{"id": 1}])))
    assert "v1.json: lacks or misstates 'category_id'; download the release again" in error_of(capsys, source)


def write_huggingface(root: Path, mask: Image.Image, mode: str | None = None) -> None:
    from datasets import Dataset, DatasetDict, Features
    from datasets import Image as ImageFeature

    features = Features(image=ImageFeature(), label=ImageFeature(mode=mode))
    rows = {"image": [Image.new("RGB", (40, 30), "green")], "label": [mask]}
    rows_of = {split: Dataset.from_dict(rows, features=features) for split in ("train", "validation")}
    DatasetDict(rows_of).save_to_disk(root)


def indexed(ids_HW: Any) -> Image.Image:
    mask = Image.fromarray(ids_HW)
    mask.putpalette(PALETTE)
    return mask


@pytest.mark.parametrize("mode", [None, "L"])
def test_hugging_face_palette_keeps_its_indices(tmp_path: Path, mode: str | None) -> None:
    source = tmp_path / "source"
    # With mode="L", `datasets` itself would give luminances.
    write_huggingface(source, indexed(truth()), mode)
    (source / "id2label.json").write_text(json.dumps({"0": "ground", "1": "leaf", "2": "stem"}))
    result = import_folder(source)
    assert result.account["format"] == "huggingface"
    assert result.classes == ("ground", "leaf", "stem")
    np.testing.assert_array_equal(result.masks["validation_000000"], truth())
    assert result.splits == {"labelled": ["train_000000"], "val": ["validation_000000"]}


def test_luminances_of_a_palette_are_reported(tmp_path: Path, capsys: Captured) -> None:
    source = tmp_path / "source"
    write_huggingface(source, indexed(truth()).convert("L"))
    names = ("--class-names", "ground", "leaf", "stem")
    message = error_of(capsys, source, *names)
    assert "lacks: 38 (mask of train/0), 75 (mask of train/0); complete the list" in message
    assert "converted colours or palette indices to grey: export indexed PNG" in message
    result = import_folder(source)
    assert result.classes == ("class 0", "class 38", "class 75")
    np.testing.assert_array_equal(result.masks["train_000000"], truth())
    assert result.losses("sparse values")


def test_hugging_face_opens_no_file_outside_the_source(tmp_path: Path, capsys: Captured) -> None:
    from datasets import Features
    from datasets import Image as ImageFeature
    from datasets.arrow_writer import ArrowWriter

    source, secret = tmp_path / "source", photograph(tmp_path / "secret.png")
    write_huggingface(source, indexed(truth()))
    cell = {"path": str(secret), "bytes": None}
    for split in ("train", "validation"):
        features = Features(image=ImageFeature(), label=ImageFeature())
        with ArrowWriter(path=str(source / split / "data-00000-of-00001.arrow"), features=features) as writer:
            writer.write({"image": cell, "label": cell})
            writer.finalize()
    assert "secret.png: is not in the source" in error_of(capsys, source)
    state = json.loads((source / "train/state.json").read_text())
    state["_data_files"][0]["filename"] = "../secret.arrow"
    (source / "train/state.json").write_text(json.dumps(state))
    assert "state.json: names '../secret.arrow', which is no plain name" in error_of(capsys, source)


@pytest.mark.parametrize(("layout", "sizes"), [("cityscapes", (4, 4, 2)), ("ade20k", (4, 4, 2)), ("voc", (4, 4, 2))])
def test_public_layouts_are_written_as_folders(tmp_path: Path, layout: str, sizes: tuple[int, int, int]) -> None:
    source = write_layout(tmp_path / "source", layout)
    result = import_folder(source)
    assert result.account["format"] == layout
    assert sum(map(len, result.splits.values())) == sum(sizes)
    assert len(result.masks) == (10 if layout != "voc" else 6)


def test_data_set_of_our_own_comes_back(tmp_path: Path) -> None:
    source = tmp_path / "source"
    photograph(source / "images/a.png")
    save_mask(source / "masks/a.png", truth())
    first = import_folder(source, "--class-names", "x", "y", "z")
    again = import_folder(first.root)
    assert again.account["format"] == "folder"
    assert (again.classes, again.splits) == (first.classes, first.splits)
    np.testing.assert_array_equal(again.masks["a"], truth())
    assert (again.root / "classes.toml").read_bytes() == (first.root / "classes.toml").read_bytes()


def test_parquet_files_get_the_command_that_converts_them(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "source/data").mkdir(parents=True)
    (tmp_path / "source/data/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    assert "save them as a folder: python -c" in error_of(capsys, tmp_path / "source")
