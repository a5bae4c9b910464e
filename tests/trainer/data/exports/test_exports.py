"""Labels in the formats of other tools, read by the tools' own packages: equal to the pixel."""

import json
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import datasets
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tests.trainer.data.exports.labelled_folder import GROUP, NAMES, SIZES, SPLITS, write_labelled
from tests.trainer.data.exports.naive_brush import read_brush
from trainer.data.exports.export_dataset import Exported, ExportOptions, export_dataset
from trainer.data.exports.exported_dataset import ExportError
from trainer.data.output_target import TargetError
from trainer.data.readers.layouts import open_dataset

MANY = tuple(f"class {index}" for index in range(300))
FOLDER_OF = {name: {"labelled": "train"}.get(split, split) for split, names in SPLITS.items() for name in names}


def export(root: Path, form: str, target: Path, **options: Any) -> Exported:
    return export_dataset(root, target, ExportOptions(form=form, progress=False, **options), lambda _done, _total: None)


def notes(exported: Exported) -> dict[str, int]:
    return {loss.kind: loss.count for loss in exported.losses}


@pytest.mark.parametrize(
    ("form", "names"),
    [("folder", NAMES), ("folder", MANY), ("huggingface", MANY)],
    ids=["folder", "folder of 300 classes", "huggingface of 300 classes"],
)
def test_every_pixel_and_split_is_kept(tmp_path: Path, form: str, names: tuple[str, ...]) -> None:
    ignore_index = 65535 if len(names) > 255 else 254
    masks = write_labelled(root := tmp_path / "own", names=names, ignore_index=ignore_index)
    export(root, form, target := tmp_path / "out")
    found = open_dataset(target)
    assert found.taxonomy.names == names
    for split, listed in SPLITS.items():
        samples = found.split({"labelled": "train"}.get(split, split) if form == "huggingface" else split)
        assert len(samples) == len(listed)
        for name, sample in zip(sorted(listed), samples, strict=True):
            source = root / f"images/{name}.png"
            assert found.read_bytes(sample, mask=False) == source.read_bytes()
            assert found.has_mask(sample) == (name in masks)
            if name in masks:
                expected = np.where(masks[name] == ignore_index, found.taxonomy.ignore_index, masks[name])
                np.testing.assert_array_equal(found.read_mask(sample, SIZES[name]), expected)


def test_rows_of_hugging_face_have_grey_masks_names_and_groups(tmp_path: Path) -> None:
    masks = write_labelled(root := tmp_path / "own")
    exported = export(root, "huggingface", target := tmp_path / "out")
    loaded = datasets.load_from_disk(str(target))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 2, "validation": 1, "unlabelled": 1}
    row = loaded["validation"][0]
    assert (row["name"], row["group"], row["mask"].mode) == ("a", GROUP["a"], "L")
    np.testing.assert_array_equal(np.asarray(row["mask"].convert("L")), masks["a"])
    assert loaded["unlabelled"][0]["mask"] is None
    assert json.loads((target / "id2label.json").read_text()) == dict(zip("012", NAMES, strict=True))
    assert notes(exported) == {"image without label": 1, "ignored pixels": 1}


def coco_mask(content: COCO, image: Any, names: tuple[str, ...], rest: int) -> npt.NDArray[np.int64]:
    ids_HW = np.full((image["height"], image["width"]), rest)
    for annotation in content.loadAnns(content.getAnnIds(image["id"])):
        (category,) = content.loadCats(annotation["category_id"])
        pixels_HW = content.annToMask(annotation) > 0
        assert annotation["area"] == pixels_HW.sum()
        ids_HW[pixels_HW] = 255 if category["name"] == "__ignore__" else names.index(category["name"])
    return ids_HW


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with numpy 2
@pytest.mark.parametrize(("names", "rest"), [(NAMES, 0), (("weed", "crop", "soil"), 255)])
def test_pycocotools_reads_every_pixel(tmp_path: Path, names: tuple[str, ...], rest: int) -> None:
    masks = write_labelled(root := tmp_path / "own", names=names)
    exported = export(root, "coco", target := tmp_path / "out")
    seen = []
    for path in sorted(target.glob("annotations/*.json")):
        content = COCO(str(path))
        folder = path.stem.removeprefix("instances_")
        for image in content.loadImgs(content.getImgIds()):
            seen.append(name := image["file_name"].removesuffix(".png"))
            assert FOLDER_OF[name] == folder
            assert image.get("group") == GROUP.get(name)
            with Image.open(target / "images" / folder / image["file_name"]) as photograph:
                assert photograph.size == (image["width"], image["height"])
            expected = masks.get(name, np.full(SIZES[name], rest))
            np.testing.assert_array_equal(coco_mask(content, image, names, rest), expected)
    assert sorted(seen) == sorted(SIZES)
    ignored = {"ignored pixels": 1} if rest == 0 else {}
    assert notes(exported) == {"image without label": 1, "rest": 1, **ignored}


def test_cvat_masks_have_the_colours_of_labelmap_and_black_is_background(tmp_path: Path) -> None:
    masks = write_labelled(root := tmp_path / "own")
    exported = export(root, "cvat", target := tmp_path / "out")
    found = open_dataset(target)
    assert found.taxonomy.names == NAMES
    assert found.taxonomy.colors[0] == (0, 0, 0)
    assert found.taxonomy.colors[1] != (0, 0, 0)
    for split, listed in SPLITS.items():
        for name, sample in zip(sorted(listed), found.split({"labelled": "train"}.get(split, split)), strict=True):
            if name in masks:
                np.testing.assert_array_equal(found.read_mask(sample, SIZES[name]), masks[name])
    with Image.open(target / "SegmentationClass/c.png") as mask:
        assert mask.mode == "RGB"
        assert mask.getpixel((0, 0)) == (224, 224, 192)
    labels = [entry["name"] for entry in json.loads((target / "labels.json").read_text())]
    assert labels == [*NAMES[1:], "ignored"]
    assert notes(exported) == {"image without label": 1, "ignored pixels": 1, "group": 1, "colour": 2}


def test_label_studio_gets_brushes_and_a_labelling_interface_that_fit(tmp_path: Path) -> None:
    masks = write_labelled(root := tmp_path / "own")
    export(root, "labelstudio", target := tmp_path / "out")
    config = ET.parse(target / "label_config.xml").getroot()  # noqa: S314 - our own file
    brushes = config.find("BrushLabels")
    assert brushes is not None
    labels = {label.get("value"): label.get("background") for label in brushes}
    assert labels == {"sky & <sea>": "#000000", "road": "#0000ff", "__ignore__": "#e0e0c0"}
    tasks = {task["data"]["name"]: task for task in json.loads((target / "tasks.json").read_text())}
    assert tasks["d"]["annotations"] == []
    assert tasks["b/photo 1"]["data"]["image"] == "/data/local-files/?d=images/b/photo%201.png"
    assert tasks["a"]["data"]["group"] == GROUP["a"]
    for name, expected in masks.items():
        ids_HW = np.zeros(SIZES[name], dtype=np.int64)
        for result in tasks[name]["annotations"][0]["result"]:
            assert (result["from_name"], result["to_name"]) == (brushes.get("name"), brushes.get("toName"))
            (label,) = result["value"]["brushlabels"]
            pixels_HW = read_brush(result["value"]["rle"], SIZES[name])[..., 3] > 0
            ids_HW[pixels_HW] = 255 if label == "__ignore__" else NAMES.index(label)
        np.testing.assert_array_equal(ids_HW, expected)


@pytest.mark.parametrize("form", ["folder", "coco", "cvat", "labelstudio", "huggingface"])
def test_archives_of_labels_only_are_equal_to_folders(tmp_path: Path, form: str) -> None:
    write_labelled(root := tmp_path / "own")
    export(root, form, folder := tmp_path / "out", with_images=False)
    export(root, form, tmp_path / "out.zip", with_images=False)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    # `datasets` writes a random fingerprint.
    different = {name for name in packed if packed[name] != written.get(name) and not name.endswith("state.json")}
    assert (sorted(packed), different) == (sorted(written), set())
    assert not any(name.endswith(".png") and not name.startswith(("masks/", "Segm")) for name in packed)


def test_images_in_no_split_and_other_splits_are_said(tmp_path: Path) -> None:
    write_labelled(root := tmp_path / "own")
    (root / "splits/labelled.txt").write_text("c\n")
    (root / "splits/few.txt").write_text("c\n")
    exported = export(root, "coco", tmp_path / "out.zip")
    assert (exported.images, exported.labels) == (3, 2)
    assert notes(exported)["in no split"] == 1
    assert notes(exported)["other split"] == 1


@pytest.mark.parametrize(
    ("names", "form", "message"),
    [
        (("a:b", "c", "d"), "cvat", "the class 'a:b' has a colon, # or line break"),
        (("ignored", "c", "d"), "cvat", "a class is called 'ignored', the label of ignored pixels"),
        (("__ignore__", "c", "d"), "coco", "a class is called __ignore__, the label of ignored pixels"),
    ],
)
def test_names_that_a_format_cannot_hold_are_errors(
    tmp_path: Path, names: tuple[str, ...], form: str, message: str
) -> None:
    write_labelled(root := tmp_path / "own", names=names)
    with pytest.raises(ExportError, match=message):
        export(root, form, target := tmp_path / "out")
    assert sorted(path.name for path in target.parent.iterdir()) == ["own"]


def test_a_data_set_without_labels_is_an_error(tmp_path: Path) -> None:
    masks = write_labelled(root := tmp_path / "own")
    for name in masks:
        (root / f"masks/{name}.png").unlink()
    with pytest.raises(ExportError, match="no image of its splits has a mask"):
        export(root, "coco", tmp_path / "out")


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    write_labelled(root := tmp_path / "own")
    target = tmp_path / name
    export(root, "coco", target)
    with pytest.raises(TargetError, match="remove it, or give another"):
        export(root, "coco", target)
