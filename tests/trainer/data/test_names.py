"""Names in split files: two images of one name, Unicode forms, backslashes, and names that are listed twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.conftest import make_recipe
from tests.trainer.layouts import write_layout
from trainer.data.dataset import EVERYTHING, DatasetError
from trainer.data.readers.layouts import open_dataset, open_unlabelled
from trainer.run_data import open_run_data

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def rename(dataset: Path, name: str, *, image: str = "", mask: str = "") -> None:
    """Rename the files of labelled0, and list it alone as `name`."""
    (dataset / "images/labelled0.png").rename(dataset / f"images/{image or name}.png")
    (dataset / "masks/labelled0.png").rename(dataset / f"masks/{mask or name}.png")
    (dataset / "splits/labelled.txt").write_text(f"{name}\n", encoding="utf-8")


def add_jpeg(dataset: Path, name: str) -> None:
    """Write another photograph, under the name of an existing one."""
    Image.new("RGB", (48, 48), "red").save(dataset / f"images/{name}.jpg")


def test_name_of_two_images_is_rejected(dataset: Path) -> None:
    add_jpeg(dataset, "labelled0")
    with pytest.raises(
        DatasetError, match=r"'labelled0' means .*images/labelled0\.jpg and .*images/labelled0\.png; rename"
    ):
        open_dataset(dataset).split("labelled")


def test_two_images_that_share_a_mask_are_rejected_when_listed_by_path(dataset: Path) -> None:
    add_jpeg(dataset, "labelled0")
    (dataset / "splits/labelled.txt").write_text("images/labelled0.jpg\n")
    with pytest.raises(DatasetError, match=r"labelled0\.jpg and .*labelled0\.png would share the mask masks/labelled0"):
        open_dataset(dataset).split("labelled")


def test_two_images_that_share_a_mask_are_rejected_when_all_images_are_labelled(dataset: Path) -> None:
    for path in (dataset / "images").glob("[!l]*.png"):
        path.unlink()
    recipe = make_recipe(dataset, "supervised")
    recipe = replace(recipe, data=replace(recipe.data, labelled=EVERYTHING, val=""))
    assert len(open_run_data(recipe).labelled) == 4
    add_jpeg(dataset, "labelled0")
    with pytest.raises(DatasetError, match=r"labelled0\.jpg and .*labelled0\.png would share the mask"):
        open_run_data(recipe)


def test_two_images_of_one_name_may_have_listed_masks(dataset: Path) -> None:
    add_jpeg(dataset, "labelled0")
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(dataset / "masks/red.png")
    (dataset / "splits/labelled.txt").write_text("images/labelled0.jpg masks/red.png\n")
    data = open_dataset(dataset)
    assert data.read_pair(data.split("labelled")[0])[1].max() == 0


def test_unlabelled_images_of_one_name_are_two_images(dataset: Path) -> None:
    add_jpeg(dataset, "unlabelled0")
    (dataset / "splits/unlabelled.txt").write_text("images/unlabelled0.jpg\nimages/unlabelled0.png\n")
    assert len(open_dataset(dataset).split("unlabelled")) == 2
    assert len(open_dataset(dataset).split(EVERYTHING)) == 11


def test_coco_images_of_both_parts_do_not_share_a_mask(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "coco", "coco")
    (root / "val2017/000000000009.jpg").write_bytes((root / "train2017/000000000009.jpg").read_bytes())
    with pytest.raises(DatasetError, match=r"would share the mask masks/000000000009\.png"):
        open_dataset(root).split("1_512/labeled")
    (root / "masks/train2017").mkdir()
    (root / "masks/000000000009.png").rename(root / "masks/train2017/000000000009.png")
    assert len(open_dataset(root).split("1_512/labeled")) == 4


def test_name_found_in_two_folders_is_rejected(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "ade20k", "ade20k")
    name = "ADE_train_00000001"
    (root / f"images/validation/{name}.jpg").write_bytes((root / f"images/training/{name}.jpg").read_bytes())
    (root / "splits/few.txt").write_text(f"{name}\n")
    with pytest.raises(DatasetError, match=rf"means .*images/training/{name}\.jpg and .*images/validation/{name}\.jpg"):
        open_dataset(root).split("few")


@pytest.mark.parametrize(("listed", "stored"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_name_is_found_in_another_unicode_form(dataset: Path, listed: str, stored: str) -> None:
    for kind in ("images", "masks"):
        (dataset / kind / stored).mkdir()
    rename(dataset, f"{listed}/{listed}", image=f"{stored}/{stored}", mask=f"{stored}/{listed}")
    data = open_dataset(dataset)
    sample = data.split("labelled")[0]
    assert data.has_mask(sample)
    assert data.read_pair(sample)[1].shape == (48, 48)
    (dataset / "splits/labelled.txt").write_text(f"images/{listed}/{listed}.png masks/{stored}/{stored}.png\n")
    assert data.has_mask(data.split("labelled")[0])


def test_images_whose_names_differ_in_unicode_form_only_do_not_share_a_mask(dataset: Path) -> None:
    rename(dataset, COMPOSED)
    Image.new("RGB", (48, 48)).save(dataset / f"images/{DECOMPOSED}.png")
    with pytest.raises(DatasetError, match=r"means .*images/"):
        open_dataset(dataset).split("labelled")


def test_current_directory_is_a_data_set(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset)
    sample = open_dataset(Path()).split("labelled")[0]
    assert (sample.image, sample.mask) == (Path("images/labelled0.png"), Path("masks/labelled0.png"))


def test_two_lines_of_one_image_are_rejected(dataset: Path) -> None:
    (dataset / "splits/labelled.txt").write_text("labelled1\nlabelled0\nimages/labelled0.png\n")
    with pytest.raises(DatasetError, match=r"'labelled0' and 'images/labelled0\.png' are one image; remove one"):
        open_dataset(dataset).split("labelled")
    rename(dataset, COMPOSED)
    (dataset / "splits/labelled.txt").write_text(f"{COMPOSED}\n{DECOMPOSED}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="are one image"):
        open_dataset(dataset).split("labelled")


@pytest.mark.parametrize("line", [r"a\0", r"images\labelled0.png masks\labelled0.png"])
def test_backslash_in_a_list_is_rejected_with_the_remedy(dataset: Path, line: str) -> None:
    (dataset / "splits/labelled.txt").write_text(f"labelled1\n{line}\n")
    with pytest.raises(DatasetError, match=r"labelled\.txt: .* contains a backslash; write / between folders"):
        open_dataset(dataset).split("labelled")


def test_backslash_in_a_list_of_rows_is_rejected(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "hf", "huggingface")
    (root / "splits").mkdir()
    (root / "splits/few.txt").write_text("val\\0\n")
    with pytest.raises(DatasetError, match="write / between folders"):
        open_dataset(root).split("few")


def test_name_of_two_images_in_a_plain_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "splits").mkdir()
    for name in ("p.jpg", "p.png"):
        Image.new("RGB", (5, 4)).save(tmp_path / name)
    (tmp_path / "splits/unlabelled.txt").write_text("p\n")
    with pytest.raises(DatasetError, match=r"'p' means .*p\.jpg and .*p\.png"):
        open_unlabelled(tmp_path).split("unlabelled")
    (tmp_path / "splits/unlabelled.txt").write_text("p.jpg\np.png\n")
    assert len(open_unlabelled(tmp_path).split("unlabelled")) == 2


@pytest.mark.parametrize("line", ["images", "images masks"])
def test_folder_in_a_list_is_no_image(dataset: Path, line: str) -> None:
    (dataset / "splits/labelled.txt").write_text(f"labelled0\n{line}\n")
    with pytest.raises(DatasetError, match=f"1 of 2 images does not exist: '{line}'"):
        open_dataset(dataset).split("labelled")


def test_extension_may_be_written_in_any_case(dataset: Path) -> None:
    (dataset / "images/labelled0.png").rename(dataset / "images/labelled0.Png")
    assert open_dataset(dataset).split("labelled")[0].image.name == "labelled0.Png"


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp"])
def test_public_layouts_find_names_with_any_extension(tmp_path: Path, suffix: str) -> None:
    root = write_layout(tmp_path / "voc", "voc")
    image = root / "JPEGImages/2007_000000.jpg"
    image.rename(image.with_suffix(suffix))
    assert open_dataset(root).split("train")[0].image.suffix == suffix
