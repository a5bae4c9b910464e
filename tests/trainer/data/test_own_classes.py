"""Own data in the folders of public data sets: class files of labelling tools, and classes that must not be assumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.conftest import make_recipe
from tests.trainer.layouts import OFFICIAL, SPLITS, save, write_layout
from trainer.__main__ import main
from trainer.data.dataset import EVERYTHING, DatasetError
from trainer.data.decode import ImageError
from trainer.data.readers.layouts import open_dataset, open_unlabelled
from trainer.run_data import open_run_data
from trainer.taxonomy import TaxonomyError, distinct_colors

LABELMAP = """# label:color_rgb:parts:actions
background:0,0,0::
pot hole: v2:250,50,83::
crack:51,221,255:edge,core:walking
"""
POT_HOLE, CRACK = (250, 50, 83), (51, 221, 255)


def write_voc(root: Path, mask: Image.Image, folder: str = "SegmentationClass") -> Path:
    """Write a photograph with a mask, and CVAT's list of all images."""
    save(root / "JPEGImages/day 1/road one.PNG", np.zeros((*mask.size[::-1], 3), np.uint8))
    (root / folder / "day 1").mkdir(parents=True)
    mask.save(root / folder / "day 1/road one.png")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("day 1/road one\n")
    return root


def colored(*colors: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.array([colors], np.uint8))


def read_default(root: Path) -> list[list[int]]:
    data = open_dataset(root)
    ids: list[list[int]] = data.read_pair(data.split("default")[0])[1].tolist()
    return ids


def test_labelmap_of_cvat_gives_classes_and_colours(tmp_path: Path) -> None:
    write_voc(tmp_path, colored((0, 0, 0), CRACK, POT_HOLE, POT_HOLE))
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    data = open_dataset(tmp_path)
    assert data.taxonomy.names == ("background", "pot hole: v2", "crack")
    assert data.taxonomy.colors == ((0, 0, 0), POT_HOLE, CRACK)
    assert read_default(tmp_path) == [[0, 2, 1, 1]]
    assert data.splits() == ("default",)


def test_colour_that_the_labelmap_lacks_is_an_error(tmp_path: Path) -> None:
    write_voc(tmp_path, colored((0, 0, 0), (1, 2, 3)))
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    with pytest.raises(ImageError, match=r"contains \[1, 2, 3\] \(1 pixel\)"):
        read_default(tmp_path)


def test_labelmap_without_colours_uses_those_of_pascal_by_position(tmp_path: Path) -> None:
    """Datumaro writes such files for labels without colours, and paints the masks with Pascal's palette."""
    write_voc(tmp_path, colored((0, 0, 0), (0, 128, 0), (128, 0, 0)))
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:::\na:::\nb:::\n")
    assert open_dataset(tmp_path).taxonomy.names == ("background", "a", "b")
    assert read_default(tmp_path) == [[0, 2, 1]]


def test_border_of_objects_is_ignored(tmp_path: Path) -> None:
    write_voc(tmp_path, colored((0, 0, 0), (224, 224, 192), CRACK))
    (tmp_path / "labelmap.txt").write_text(f"{LABELMAP}ignored:224,224,192::\nbox only:::\n")
    assert open_dataset(tmp_path).taxonomy.names == ("background", "pot hole: v2", "crack")
    assert read_default(tmp_path) == [[0, 255, 2]]


def test_labelmap_applies_to_palette_masks(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[0, 7, 255]], np.uint8))
    palette = np.zeros((256, 3), np.uint8)
    palette[7], palette[255] = CRACK, (224, 224, 192)
    mask.putpalette(palette.tobytes())
    write_voc(tmp_path, mask)
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    assert read_default(tmp_path) == [[0, 2, 255]]


def test_grey_masks_store_positions_in_the_labelmap(tmp_path: Path) -> None:
    """Datumaro writes them with apply_colormap=False."""
    write_voc(tmp_path, Image.fromarray(np.array([[0, 1, 3, 255]], np.uint8)))
    (tmp_path / "labelmap.txt").write_text(LABELMAP.replace("crack", "box only:::\ncrack"))
    assert open_dataset(tmp_path).taxonomy.names == ("background", "pot hole: v2", "crack")
    assert read_default(tmp_path) == [[0, 1, 2, 255]]


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationClassPNG"])
@pytest.mark.parametrize("first", ["__ignore__\n", ""])
def test_class_names_of_labelme_are_read(tmp_path: Path, folder: str, first: str) -> None:
    mask = Image.fromarray(np.array([[0, 1, 2, 255]], np.uint8))
    mask.putpalette([part for color in distinct_colors(256) for part in color])
    write_voc(tmp_path, mask, folder)
    (tmp_path / "class_names.txt").write_text(f"{first}_background_\npothole\ncrack")
    data = open_dataset(tmp_path)
    assert data.taxonomy.names == ("_background_", "pothole", "crack")
    assert read_default(tmp_path) == [[0, 1, 2, 255]]


def test_classes_toml_comes_before_the_files_of_tools(tmp_path: Path) -> None:
    write_voc(tmp_path, Image.fromarray(np.array([[0, 1]], np.uint8)))
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    (tmp_path / "classes.toml").write_text('[[classes]]\nname = "all"\ncolor = [1, 2, 3]\nvalues = [0, 1]\n')
    assert read_default(tmp_path) == [[0, 0]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labelmap.txt", "background:0,0::", r"'background:0,0::' is not name:red,green,blue:parts:actions"),
        ("labelmap.txt", "background", "is not name:red,green,blue"),
        ("labelmap.txt", "a:0,0,300::", "each 0..255"),
        ("labelmap.txt", "a:0,0,0::\nb:0,0,0::", "'a' and 'b' have the same colour"),
        ("labelmap.txt", "a:0,0,0::\na:0,0,1::", "two classes have the same name"),
        ("labelmap.txt", "# nothing\n", "there are no classes"),
        ("class_names.txt", "__ignore__\n", "there are no classes"),
    ],
)
def test_faulty_class_file_is_rejected(tmp_path: Path, name: str, text: str, message: str) -> None:
    write_voc(tmp_path, colored((0, 0, 0)))
    (tmp_path / name).write_text(text)
    with pytest.raises(TaxonomyError, match=rf"{name}: .*{message}.*; correct it, or write a classes\.toml"):
        open_dataset(tmp_path)


def write_mmsegmentation(root: Path) -> Path:
    """Write four own classes in images/{training,test} and annotations/{training,test}."""
    for split in ("training", "test"):
        for index in range(4):
            save(root / f"images/{split}/field{index}.jpg", np.full((8, 8, 3), 60 * index, np.uint8))
            save(root / f"annotations/{split}/field{index}.png", np.arange(64, dtype=np.uint8).reshape(8, 8) % 4)
    return root


def test_own_data_in_the_folders_of_ade20k_are_not_ade20k(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_mmsegmentation(tmp_path)
    assert main(["check-data", str(root)]) == 1
    said = capsys.readouterr().out
    assert "has the folders of ADE20K, but not its names: an image is called 'field" in said
    assert 'classes.toml, or set data.format = \\"ade20k\\" (--format ade20k) if they are the 150 classes' in said
    with pytest.raises(DatasetError, match="not its names"):
        open_run_data(make_recipe(root))


def test_own_classes_in_the_folders_of_ade20k_keep_their_ids(tmp_path: Path) -> None:
    root = write_mmsegmentation(tmp_path)
    tables = [f'[[classes]]\nname = "{name}"\ncolor = [0, 0, 0]\n' for name in ("soil", "weed", "crop", "stone")]
    (root / "classes.toml").write_text("".join(tables))
    data = open_dataset(root)
    assert data.splits() == ("test", "train")
    image, mask_HW = data.read_pair(data.split("test")[1])
    assert image.mean() == pytest.approx(60, abs=2)
    assert mask_HW[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    (root / "splits").mkdir()
    (root / "splits/few.txt").write_text("field1\n")
    with pytest.raises(DatasetError, match=r"means .*images/test/field1\.jpg and .*images/training/field1\.jpg"):
        data.split("few")


RENAMED: dict[str, Any] = {
    "voc": ("JPEGImages/2007_000000.jpg", "JPEGImages/img_000000.jpg"),
    "cityscapes": (
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
        "leftImg8bit/train/aachen/madrid_000000_000019_leftImg8bit.png",
    ),
    "ade20k": ("images/training/ADE_train_00000001.jpg", "images/training/00000001.jpg"),
    "coco": ("train2017/000000000009.jpg", "train2017/9.jpg"),
}


@pytest.mark.parametrize("layout", [*OFFICIAL])
def test_classes_of_a_public_data_set_are_assumed_for_its_own_names_only(layout: str, tmp_path: Path) -> None:
    root = write_layout(tmp_path / layout, layout)
    assert open_dataset(root).assumed
    old, new = RENAMED[layout]
    (root / old).rename(root / new)
    write = r"write \(from annotations, prepare-coco does\)" if layout == "coco" else "write"
    with pytest.raises(
        DatasetError, match=rf"'{Path(new).name}'; {write} the masks' classes .* data\.format = \"{layout}\""
    ):
        open_dataset(root)
    assert not open_dataset(root, layout).assumed
    assert len(open_unlabelled(root).split(EVERYTHING)) == 10


@pytest.mark.parametrize(
    ("layout", "image"),
    [
        ("cityscapes", "leftImg8bit/demoVideo/stuttgart_00/stuttgart_00_000000_000001_leftImg8bit.png"),
        ("cityscapes", "leftImg8bit/train_extra/bad-honnef/bad-honnef_000000_000000_leftImg8bit.png"),
        ("ade20k", "images/testing/ADE_test_00000001.jpg"),
        ("coco", "unlabeled2017/000000000008.jpg"),
    ],
)
def test_unlabelled_parts_of_a_public_data_set_have_its_names(layout: str, image: str, tmp_path: Path) -> None:
    root = write_layout(tmp_path / layout, layout)
    save(root / image, np.zeros((4, 4, 3), np.uint8))
    assert open_dataset(root).assumed


def test_few_masks_with_few_classes_of_a_public_data_set_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_layout(tmp_path / "voc", "voc", labelled=99, unlabelled=2, val=2)
    assert main(["check-data", str(root)]) == 0
    said = capsys.readouterr().out
    assert "warning: 92/labeled: 99 masks show 2 of the 21 classes of Pascal VOC 2012" in said
    assert "write their classes into classes.toml, or confirm these with data.format (--format)" in said
    assert main(["check-data", str(root), "--format", "voc"]) == 0
    assert "masks show" not in capsys.readouterr().out


def test_one_foreign_name_among_many_is_found(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "voc", "voc", labelled=300)
    save(root / "JPEGImages/zebra.jpg", np.zeros((4, 4, 3), np.uint8))
    save(root / "JPEGImages/apple.jpg", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"an image is called 'apple\.jpg'"):
        open_dataset(root)


def test_many_masks_with_few_classes_of_a_public_data_set_are_an_error(tmp_path: Path) -> None:
    """The names are Pascal's, the labels are not: such sets exist, for example for salient objects."""
    root = write_layout(tmp_path / "voc", "voc", labelled=100, unlabelled=2, val=2)
    recipe = make_recipe(root)
    splits = SPLITS["voc"]
    recipe = replace(recipe, data=replace(recipe.data, labelled=splits.labelled, unlabelled=splits.unlabelled))
    with pytest.raises(DatasetError, match="92/labeled: 100 masks show 2 of the 21 classes of Pascal VOC 2012; write"):
        open_run_data(recipe)
    assert main(["check-data", str(root)]) == 1
    assert main(["check-data", str(root), "--format", "voc"]) == 0
