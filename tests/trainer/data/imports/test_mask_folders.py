"""Any folders of images and masks: how masks are found, matched, and what their values mean."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.trainer.data.imports.imported import IGNORE, error_of, import_folder, photograph, save_mask, truth
from trainer.taxonomy import distinct_colors

PALETTE = [part for color in distinct_colors(256) for part in color]
Captured = pytest.CaptureFixture[str]


def write_pair(
    root: Path, image: str, mask: str, values: Any, *, size: tuple[int, int] = (30, 40), seed: int = 0
) -> None:
    photograph(root / image, size=size, seed=seed)
    save_mask(root / mask, values)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.JPG", "masks/a.png"),
        ("img_dir/a.jpg", "ann_dir/a.png"),
        ("images/sub/a.tif", "annotations/sub/a.tif"),
        ("a.jpg", "masks/a.png"),
        ("Images/a.jpg", "SegmentationClass/a.png"),
        ("a.jpg", "a_mask.png"),
        ("a.jpg", "a.png"),
        ("images/a.webp", "labels/a_seg_v2.png"),
        ("train/images/a.jpg", "train/masks/a.png"),
        ("train/a.jpg", "trainannot/a.png"),
        ("test/a.jpg", "test_labels/a_L.png"),
        ("pictures/a.jpg", "pictures_masks/a.gif"),
        ("export/images/a.jpg", "export/masks/a.png"),
    ],
)
def test_usual_folders_are_found(tmp_path: Path, image: str, mask: str) -> None:
    source = tmp_path / "source"
    write_pair(source, image, mask, truth())
    result = import_folder(source)
    (name,) = result.masks
    assert name.endswith("a")
    np.testing.assert_array_equal(result.masks[name], truth())
    assert result.classes == ("class 0", "class 1", "class 2")
    assert result.losses("unnamed classes")[0]["remedy"].startswith("--class-names")


def test_splits_of_the_source_are_kept_in_both_forms_of_mmsegmentation(tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "b"]
    for root, (images, masks) in zip(roots, [("images", "annotations"), ("img_dir", "ann_dir")], strict=True):
        for index, (split, name) in enumerate([("training", "x"), ("training", "y"), ("validation", "x")]):
            write_pair(root, f"{images}/{split}/{name}.jpg", f"{masks}/{split}/{name}.png", truth(shift=index))
        photograph(root / f"{images}/test/z.jpg")
        photograph(root / f"{images}/training/unlabelled.jpg")
        result = import_folder(root, "--class-names", "ground", "leaf", "stem", "--val-share", "0.2")
        # Two images are called x: their paths are their names.
        train_x, val_x = f"{images}/training/x", f"{images}/validation/x"
        assert result.splits == {
            "labelled": [train_x, "y"],
            "unlabelled": ["unlabelled"],
            "val": [val_x],
            "test": ["z"],
        }
        assert result.losses("renamed")[0]["count"] == 2
        np.testing.assert_array_equal(result.masks[val_x], truth(shift=2))


def test_lists_of_names_give_the_splits(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("a b", "c.1", "d"):
        write_pair(source, f"images/{name}.jpg", f"masks/{name}.png", truth())
    (source / "ImageSets").mkdir()
    (source / "ImageSets/train.txt").write_text("a b\nimages/d.jpg masks/d.png\n")
    (source / "ImageSets/val.txt").write_text("c.1\n")
    result = import_folder(source)
    assert result.splits == {"labelled": ["a b", "d"], "val": ["c.1"]}
    used = {entry["file"]: entry["as"] for entry in result.account["files"]}
    assert used["ImageSets/val.txt"] == "list of names"
    assert used["masks/d.png"] == "label"


def test_images_in_a_folder_called_unlabelled_are_imported(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_pair(source, "train/images/a.jpg", "train/masks/a.png", truth())
    photograph(source / "Unlabelled/day 1/b.jpg")
    photograph(source / "readme/c.jpg")
    result = import_folder(source)
    assert result.splits == {"labelled": ["a"], "unlabelled": ["day 1/b"]}
    (unused,) = result.losses("unused image")
    assert (unused["examples"], unused["remedy"][:9]) == (["readme/c.jpg"], "move them")


def test_two_folders_that_the_user_names(tmp_path: Path, capsys: Captured) -> None:
    source = tmp_path / "source"
    write_pair(source, "photos of may/a.jpg", "drawn/a-x.png", truth())
    assert "none of the known formats was found" in error_of(capsys, source)
    result = import_folder(source, "--images", "photos of may", "--masks", "drawn")
    np.testing.assert_array_equal(result.masks["a"], truth())
    assert "has no folder typo with files; it has drawn, photos of may" in error_of(capsys, source, "--masks", "typo")


def test_mask_pattern_with_an_ending_that_no_rule_knows(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_pair(source, "x.jpg", "anno-x-final.png", truth())
    write_pair(source, "y.jpg", "anno-y-final.png", truth(shift=2))
    result = import_folder(source, "--mask-pattern", "anno-{stem}-final.png")
    np.testing.assert_array_equal(result.masks["y"], truth(shift=2))
    assert sorted(result.masks) == ["x", "y"]


@pytest.mark.parametrize("stored", [0, 1])
@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_black_and_white_masks_become_two_classes(tmp_path: Path, mode: str, stored: int) -> None:
    source, ids_HW = tmp_path / "source", truth(classes=2)
    photograph(source / "images/a.jpg")
    white = 255 if stored == 0 or mode == "RGB" else 1
    mask = Image.fromarray(ids_HW * white)
    if mode == "1":
        mask = Image.fromarray(ids_HW.astype(np.bool_))
    elif mode == "P":
        mask.putpalette(PALETTE)
    elif mode == "RGB":
        mask = mask.convert("RGB")
    (source / "masks").mkdir()
    mask.save(source / "masks/a.png")
    result = import_folder(source, "--class-names", "weed")
    assert result.classes == ("background", "weed")
    np.testing.assert_array_equal(result.masks["a"], ids_HW)
    assert result.losses("black-and-white masks")


def test_jpeg_masks_are_black_and_white_or_an_error(tmp_path: Path, capsys: Captured) -> None:
    source, ids_HW = tmp_path / "source", np.zeros((32, 32), np.uint8)
    ids_HW[8:24, 8:24] = 1
    photograph(source / "images/a.jpg", size=(32, 32))
    save_mask(source / "masks/a.jpg", ids_HW * 255)
    np.testing.assert_array_equal(import_folder(source).masks["a"], ids_HW)
    save_mask(source / "masks/a.jpg", ids_HW * 100)
    assert "masks/a.jpg: JPEG changes the values of masks" in error_of(capsys, source)


def test_one_mask_for_each_class(tmp_path: Path) -> None:
    source, ids_HW = tmp_path / "source", truth()
    photograph(source / "a_1.png")
    photograph(source / "a.png", seed=1)
    for index, name in ((2, "big_leaf"), (1, "stem")):
        save_mask(source / f"m/a_1_{name}.png", (ids_HW == index).astype(np.uint8) * 255)
    result = import_folder(source, "--images", ".", "--masks", "m", "--mask-pattern", "{stem}_{class}.png")
    assert result.classes == ("background", "big_leaf", "stem")
    np.testing.assert_array_equal(result.masks["a_1"], np.array([0, 2, 1])[ids_HW])
    assert result.splits["unlabelled"] == ["a"]


def test_one_mask_for_each_class_beside_images_of_the_same_kind(tmp_path: Path) -> None:
    source, ids_HW = tmp_path / "source", truth(classes=2)
    for name in ("a", "c_d"):
        photograph(source / f"{name}.png")
        save_mask(source / f"{name}_leaf.png", ids_HW * 255)
    result = import_folder(source, "--mask-pattern", "{stem}_{class}.png")
    assert result.classes == ("background", "leaf")
    assert sorted(result.masks) == ["a", "c_d"]
    np.testing.assert_array_equal(result.masks["c_d"], ids_HW)


def test_several_folders_of_masks_ask_which(tmp_path: Path, capsys: Captured) -> None:
    source = tmp_path / "source"
    write_pair(source, "images/a.png", "masks/a.png", truth())
    save_mask(source / "labels/a.png", truth(shift=1))
    assert "has the folders images and labels, masks; say which are meant with --images DIR" in error_of(capsys, source)
    result = import_folder(source, "--images", f"{source.name}/images", "--masks", "labels")
    np.testing.assert_array_equal(result.masks["a"], truth(shift=1))


def test_masks_of_two_classes_that_overlap_are_reported(tmp_path: Path) -> None:
    source, white = tmp_path / "source", np.full((30, 40), 255, np.uint8)
    photograph(source / "images/a.png")
    save_mask(source / "masks/leaf/a.png", white)
    save_mask(source / "masks/stem/a.png", white)
    arguments = ("--images", "images", "--masks", "masks", "--mask-pattern", "{class}/{stem}.png")
    result = import_folder(source, *arguments, "--class-names", "stem", "leaf")
    assert (result.masks["a"] == 2).all()
    assert "later in the list wins" in result.losses("overlap")[0]["message"]
    assert result.losses("overlap")[0]["examples"] == ["masks/leaf/a.png (1200 pixels)"]


def test_palette_gives_colours_and_indices_stay_the_classes(tmp_path: Path) -> None:
    source, ids_HW = tmp_path / "source", truth()
    ids_HW[0] = 255
    photograph(source / "images/a.png")
    save_mask(source / "masks/a.png", ids_HW, PALETTE)
    result = import_folder(source)
    expected = np.where(ids_HW == 255, IGNORE, ids_HW)
    np.testing.assert_array_equal(result.masks["a"], expected)
    assert [entry["color"] for entry in result.account["classes"]] == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert result.losses("ignored value")


@pytest.mark.parametrize("equal_channels", [False, True])
def test_sparse_values_keep_their_order_and_are_reported(tmp_path: Path, *, equal_channels: bool) -> None:
    source, ids_HW = tmp_path / "source", truth()
    values_HW = np.array([0, 38, 75], np.uint8)[ids_HW]
    photograph(source / "images/a.png")
    save_mask(source / "masks/a.png", np.repeat(values_HW[..., None], 3, 2) if equal_channels else values_HW)
    result = import_folder(source, "--ignore-values", "75")
    assert result.classes == ("class 0", "class 38")
    np.testing.assert_array_equal(result.masks["a"], np.array([0, 1, IGNORE])[ids_HW])
    assert "conversion to grey" in result.losses("sparse values")[0]["message"]


def test_colours_without_a_list_become_classes(tmp_path: Path) -> None:
    source, ids_HW = tmp_path / "source", truth()
    colors = np.array([(0, 0, 0), (0, 200, 0), (255, 0, 1)], np.uint8)
    photograph(source / "images/a.png")
    save_mask(source / "masks/a.png", colors[ids_HW])
    result = import_folder(source)
    assert result.classes == ("background", "#00c800", "#ff0001")
    np.testing.assert_array_equal(result.masks["a"], ids_HW)


LISTS = {
    "class_dict.csv": "name,r,g,b\nground,0,0,0\nleaf,0,200,0\nstem,255,0,1\n",
    "label_colors.txt": "0 0 0\tground\n0 200 0\tleaf\n255 0 1\tstem\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nground:0,0,0::\nleaf:0,200,0::\nstem:255,0,1::\n",
    "classes.toml": 'masks = "colours"\n'
    + "".join(
        f'[[classes]]\nname = "{name}"\ncolor = {color}\n'
        for name, color in (("ground", [0, 0, 0]), ("leaf", [0, 200, 0]), ("stem", [255, 0, 1]))
    ),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("indexed", [False, True])
def test_list_of_colours_names_the_classes(tmp_path: Path, name: str, *, indexed: bool) -> None:
    source, ids_HW = tmp_path / "source", truth()
    palette = [9] * 15 + [0, 200, 0, 255, 0, 1, 0, 0, 0] if indexed else None
    colors = np.array([(0, 0, 0), (0, 200, 0), (255, 0, 1)], np.uint8)
    photograph(source / "pictures/a.png")
    save_mask(source / "drawn/a.png", np.array([7, 5, 6], np.uint8)[ids_HW] if indexed else colors[ids_HW], palette)
    (source / name).write_text(LISTS[name])
    result = import_folder(source, "--images", "pictures", "--masks", "drawn")
    assert result.classes == ("ground", "leaf", "stem")
    np.testing.assert_array_equal(result.masks["a"], ids_HW)
    assert {entry["file"]: entry["as"] for entry in result.account["files"]}[name] == "list of classes"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("id2label.json", json.dumps({"0": "ground", "4": "leaf", "9": "stem"})),
        ("names.csv", "Pixel Value, Class\n0, ground\n4, leaf\n9, stem\n"),
    ],
)
def test_list_with_values_names_the_classes(tmp_path: Path, capsys: Captured, name: str, text: str) -> None:
    source, ids_HW = tmp_path / "source", truth()
    photograph(source / "images/a.png")
    save_mask(source / "masks/a.png", np.array([0, 4, 9], np.uint8)[ids_HW])
    (tmp_path / name).write_text(text)
    result = import_folder(source, "--classes", str(tmp_path / name))
    assert result.classes == ("ground", "leaf", "stem")
    np.testing.assert_array_equal(result.masks["a"], ids_HW)
    save_mask(source / "masks/a.png", ids_HW)
    message = error_of(capsys, source, "--classes", str(tmp_path / name))
    assert "masks store values that the list of classes lacks: 1 (masks/a.png), 2 (masks/a.png); complete" in message


def test_photographs_are_no_masks(tmp_path: Path, capsys: Captured) -> None:
    source = tmp_path / "source"
    photograph(source / "images/a.png")
    photograph(source / "masks/a.png")
    assert "colours, as photographs do (masks/a.png)" in error_of(capsys, source)


def test_masks_of_other_names_are_an_error_that_shows_both(tmp_path: Path, capsys: Captured) -> None:
    source = tmp_path / "source"
    write_pair(source, "images/a.png", "masks/b.png", truth())
    message = error_of(capsys, source)
    assert "no mask belongs to an image; an image is called a.png, a mask b.png" in message
    assert '--mask-pattern "{stem}_mask.png"' in message


def test_faulty_masks_are_reported_and_their_images_are_unlabelled(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_pair(source, "images/good.png", "masks/good.png", truth())
    write_pair(source, "images/small.png", "masks/small.png", truth((28, 40)))
    write_pair(source, "images/ignored.png", "masks/ignored.png", np.full((30, 40), 255, np.uint8))
    photograph(source / "images/broken.png")
    (source / "masks/broken.png").write_bytes(b"PNG")
    (source / "images/damaged.jpg").write_bytes(b"\xff\xd8\xff")
    save_mask(source / "masks/alone.png", truth())
    result = import_folder(source)
    assert result.splits == {"labelled": ["good"], "unlabelled": ["broken", "ignored", "small"]}
    examples = [example for loss in result.losses("unusable label") for example in loss["examples"]]
    assert examples[0].startswith("masks/broken.png: cannot be decoded")
    assert examples[1].startswith("masks/small.png: the mask has 40x28 pixels, its image 40x30 (width x height)")
    assert result.losses("annotation without image")[0]["examples"] == ["masks/alone.png"]
    assert result.losses("empty mask")[0]["examples"] == ["images/ignored.png"]
    assert result.losses("unreadable image")[0]["examples"][0].startswith("images/damaged.jpg: is not an image")


def test_images_without_annotation_can_be_background(tmp_path: Path, capsys: Captured) -> None:
    source = tmp_path / "source"
    write_pair(source, "images/a.png", "masks/a.png", truth(classes=2) * 255)
    photograph(source / "images/b.png")
    assert import_folder(source).losses("image without annotation")[0]["remedy"].endswith("use --empty background")
    shown = import_folder(source.rename(tmp_path / "again"), "--empty", "background")
    assert shown.splits == {"labelled": ["a", "b"]}
    assert not shown.masks["b"].any()
    assert "needs --rest background" in error_of(
        capsys, tmp_path / "again", "--empty", "background", "--rest", "ignored"
    )


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_mask_of_the_stored_picture_is_turned(tmp_path: Path, orientation: int) -> None:
    source, ids_HW = tmp_path / "source", truth()
    image = photograph(source / "images/a.jpg", orientation=orientation)
    save_mask(source / "masks/a.png", ids_HW)
    result = import_folder(source)
    # Pillow is the judge: a picture of the ids with the same tag.
    judge = Image.fromarray(ids_HW)
    exif = Image.Exif()
    exif[0x0112] = orientation
    judge.save(tmp_path / "judge.png", exif=exif)
    with Image.open(tmp_path / "judge.png") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(result.masks["a"], expected)
    assert "turned by the image's EXIF orientation" in result.losses("orientation")[0]["message"]
    assert image.read_bytes() == (result.root / "images/a.jpg").read_bytes()


def test_mask_of_the_upright_picture_stays(tmp_path: Path) -> None:
    source, ids_HW = tmp_path / "source", truth((40, 30))
    photograph(source / "images/a.jpg", orientation=6)
    save_mask(source / "masks/a.png", ids_HW)
    result = import_folder(source)
    np.testing.assert_array_equal(result.masks["a"], ids_HW)
    assert not result.losses("orientation")


def test_more_than_255_classes_become_16_bits(tmp_path: Path) -> None:
    source, ids_HW = tmp_path / "source", np.arange(1200, dtype=np.uint16).reshape(30, 40) % 300
    photograph(source / "images/a.png")
    save_mask(source / "masks/a.png", ids_HW)
    (source / "classes.txt").write_text("".join(f"kind {index}\n" for index in range(300)))
    result = import_folder(source)
    np.testing.assert_array_equal(result.masks["a"], ids_HW)
    assert "ignore_index = 65535" in (result.root / "classes.toml").read_text()
