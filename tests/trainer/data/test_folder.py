"""The folder layout: reading, the settings of classes.toml, and error messages."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.conftest import make_recipe
from trainer.data.dataset import EVERYTHING, DatasetError, MissingImagesError, check_disjoint
from trainer.data.decode import ImageError
from trainer.data.readers.layouts import open_dataset
from trainer.run_data import open_run_data
from trainer.taxonomy import TaxonomyError

ROAD, SKY = (128, 64, 128), (70, 130, 180)


def write_classes(dataset: Path, text: str) -> None:
    (dataset / "classes.toml").write_text(text)


def two_classes(head: str, first: str, second: str) -> str:
    return (
        f'{head}\n[[classes]]\nname = "road"\ncolor = {list(ROAD)}\n{first}\n'
        f'[[classes]]\nname = "sky"\ncolor = {list(SKY)}\n{second}\n'
    )


def labelled_mask(dataset: Path, index: int = 0) -> list[list[int]]:
    data = open_dataset(dataset)
    values: list[list[int]] = data.read_pair(data.split("labelled")[index])[1].tolist()
    return values


def write_mask(dataset: Path, stored: list[int], kind: str = "uint8") -> None:
    """Write one row of stored values as the mask of labelled0, and an image of its size."""
    Image.fromarray(np.array([stored], dtype=kind)).save(dataset / "masks/labelled0.png")
    Image.new("RGB", (len(stored), 1)).save(dataset / "images/labelled0.png")


def write_color_mask(dataset: Path, colors: list[tuple[int, int, int]]) -> None:
    write_mask(dataset, [0] * len(colors))
    Image.fromarray(np.array([colors], dtype=np.uint8)).save(dataset / "masks/labelled0.png")


def test_split_gives_images_and_masks(dataset: Path) -> None:
    data = open_dataset(dataset)
    image_HWC, mask_HW = data.read_pair(data.split("labelled")[0])
    assert image_HWC.shape == (48, 48, 3)
    assert image_HWC.dtype == np.uint8
    assert mask_HW.dtype == np.int64
    assert set(np.unique(mask_HW)) == {0, 1}
    assert data.taxonomy.names == ("dark", "bright")


def test_missing_mask_is_named(dataset: Path) -> None:
    (dataset / "masks/labelled1.png").unlink()
    data = open_dataset(dataset)
    sample = data.split("labelled")[1]
    assert not data.has_mask(sample)
    with pytest.raises(ImageError, match=r"masks/labelled1\.png: the mask is missing"):
        data.read_pair(sample)


def test_mask_of_wrong_size_is_reported_with_both_sizes(dataset: Path) -> None:
    Image.new("L", (20, 10)).save(dataset / "masks/labelled0.png")
    with pytest.raises(ImageError, match=r"labelled0\.png: the mask has 20x10 pixels, its image 48x48"):
        labelled_mask(dataset)


def test_unknown_values_are_reported_with_counts(dataset: Path) -> None:
    write_mask(dataset, [7, 7, 0, 9, 1, 255])
    with pytest.raises(
        ImageError, match=r"labelled0\.png: contains 7 \(2 pixels\), 9 \(1 pixel\), neither a class .* 0\.\.1, 255"
    ):
        labelled_mask(dataset)


def test_16_bit_value_is_not_truncated_to_8_bits(dataset: Path) -> None:
    write_mask(dataset, [0, 256, 1], "uint16")
    with pytest.raises(ImageError, match=r"contains 256 \(1 pixel\)"):
        labelled_mask(dataset)


def test_16_bit_masks_store_ids(dataset: Path) -> None:
    write_mask(dataset, [0, 1, 255], "uint16")
    assert labelled_mask(dataset) == [[0, 1, 255]]


def test_palette_mask_gives_indices_not_colours(dataset: Path) -> None:
    write_mask(dataset, [0, 1, 0])
    mask = Image.open(dataset / "masks/labelled0.png")
    mask.putpalette([200, 0, 0, 0, 200, 0])
    mask.save(dataset / "masks/labelled0.png")
    assert labelled_mask(dataset) == [[0, 1, 0]]


def test_colour_mask_error_names_the_setting_that_reads_it(dataset: Path) -> None:
    Image.new("RGB", (48, 48)).save(dataset / "masks/labelled0.png")
    with pytest.raises(ImageError, match=r'one channel .* masks = "colours"'):
        labelled_mask(dataset)


def test_colours_are_mapped_to_classes(dataset: Path) -> None:
    write_classes(
        dataset, two_classes('masks = "colours"\nignore_colors = [[0, 0, 0]]', "", "colors = [[1, 2, 3], [4, 5, 6]]")
    )
    write_color_mask(dataset, [ROAD, (1, 2, 3), (4, 5, 6), (0, 0, 0)])
    assert labelled_mask(dataset) == [[0, 1, 1, 255]]


def test_unknown_colours_are_reported_with_counts(dataset: Path) -> None:
    write_classes(dataset, two_classes('masks = "colours"', "", ""))
    write_color_mask(dataset, [ROAD, (9, 9, 9), (9, 9, 9), (0, 0, 0)])
    with pytest.raises(ImageError, match=r"labelled0\.png: contains \[9, 9, 9\] \(2 pixels\), \[0, 0, 0\] \(1 pixel\)"):
        labelled_mask(dataset)


def test_several_stored_values_map_to_one_class(dataset: Path) -> None:
    write_classes(dataset, two_classes("ignore_values = [3]", "values = [7, 8]", "values = [23]"))
    write_mask(dataset, [7, 8, 23, 3, 255])
    assert labelled_mask(dataset) == [[0, 0, 1, 255, 255]]
    write_mask(dataset, [7, 0])
    with pytest.raises(ImageError, match=r"contains 0 \(1 pixel\)"):
        labelled_mask(dataset)


def test_reduce_zero_ignores_0_and_shifts_other_values_by_one(dataset: Path) -> None:
    write_classes(dataset, two_classes("reduce_zero = true", "", ""))
    write_mask(dataset, [0, 1, 2, 255])
    assert labelled_mask(dataset) == [[255, 0, 1, 255]]
    write_mask(dataset, [3, 1])
    with pytest.raises(ImageError, match=r"contains 3 \(1 pixel\)"):
        labelled_mask(dataset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no classes"),
        ('[[classes]]\nname = "a"\ncolor = [1, 2]', "color must be"),
        ("[[classes]]\ncolor = [1, 2, 3]", "has no name"),
        ("[[classes", "classes.toml"),
        (two_classes("reduce_zeros = true", "", ""), "unknown key 'reduce_zeros'"),
        (two_classes("", "value = 1", ""), "class 'road': unknown key 'value'"),
        (two_classes("reduce_zero = 1", "", ""), "must be true or false"),
        (two_classes('masks = "rgb"', "", ""), 'must be "ids" or "colours"'),
        (two_classes("", "values = [1]", ""), "'sky' has no values"),
        (two_classes("", "values = [1]", "values = [1]"), "1 belongs to two classes, 'road' and 'sky'"),
        (two_classes("", "values = [-1]", "values = [1]"), "each 0..65535"),
        (two_classes("ignore_values = [1]", "", ""), "1 is also a stored value of class 'sky'"),
        (two_classes("reduce_zero = true", "values = [1]", "values = [2]"), "reduce_zero"),
        (two_classes("", "colors = [[1, 2, 3]]", ""), 'add masks = "colours"'),
        (two_classes('masks = "colours"\nreduce_zero = true', "", ""), "are for masks of ids"),
        (two_classes('masks = "colours"', "", f"colors = [{list(ROAD)}]"), "belongs to two classes"),
        (two_classes('masks = "colours"', "", "colors = [[1, 2]]"), "each 0..255"),
        (two_classes("", "id = 1", "id = 0"), r"class 0 \(road\): id = 1, but .* its position"),
        (two_classes("", "id = false", ""), "id = False"),
        ('classes = "road"', "write a .* table"),
        ("classes = 3", "write a .* table"),
        (two_classes('ignore_index = "none"', "", ""), "ignore_index = 'none'"),
        (two_classes("ignore_index = true", "", ""), "ignore_index = True"),
        (two_classes("ignore_index = 1", "", ""), "class 'sky'; use 255"),
        (two_classes(f'masks = "colours"\nignore_colors = [{list(SKY)}]', "", ""), "is also class 'sky'"),
    ],
)
def test_invalid_classes_file_is_rejected_with_reason(dataset: Path, text: str, message: str) -> None:
    write_classes(dataset, text)
    with pytest.raises(TaxonomyError, match=message):
        open_dataset(dataset)


def test_text_files_may_begin_with_a_byte_order_mark(dataset: Path) -> None:
    """Editors on Windows write one."""
    names = [sample.name for sample in open_dataset(dataset).split("labelled")]
    for path in (dataset / "classes.toml", dataset / "splits/labelled.txt"):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    opened = open_dataset(dataset)
    assert [sample.name for sample in opened.split("labelled")] == names


def test_ignore_index_65535_is_recommended_for_more_than_255_classes(dataset: Path) -> None:
    many = "".join(f'[[classes]]\nname = "{index}"\ncolor = [0, 0, 0]\nid = {index}\n' for index in range(256))
    write_classes(dataset, many)
    with pytest.raises(TaxonomyError, match="class '255'; use 65535"):
        open_dataset(dataset)
    write_classes(dataset, f"ignore_index = 65535\n{many}")
    assert len(open_dataset(dataset).taxonomy) == 256


def test_names_with_extension_get_a_specific_remedy(dataset: Path) -> None:
    (dataset / "splits/labelled.txt").write_text("labelled0.png\nlabelled1.png\n")
    with pytest.raises(MissingImagesError, match=r"write names without extension: labelled0$"):
        open_dataset(dataset).split("labelled")
    (dataset / "splits/labelled.txt").write_text("nobody.png\n")
    with pytest.raises(MissingImagesError, match=r"check data\.root"):
        open_dataset(dataset).split("labelled")


@pytest.mark.parametrize(
    "line",
    [
        "Labelled0",
        "images/photos/labelled0.png",
        "LABELLED0.PNG",
        "photos/labelled0",
        "Images/Photos/labelled0.png masks/labelled0.png",
    ],
)
def test_name_that_differs_in_case_or_folder_is_explained(line: str, dataset: Path) -> None:
    for path in dataset.glob("*/labelled0.png"):
        (path.parent / "Photos").mkdir(exist_ok=True)
        path.rename(path.parent / "Photos" / path.name)
    (dataset / "splits/labelled.txt").write_text(f"nobody\n{line}\nlabelled1\n")
    with pytest.raises(MissingImagesError) as caught:
        open_dataset(dataset).split("labelled")
    assert f"{line!r} may mean images/Photos/labelled0.png: write names with" in str(caught.value)


def test_all_images_as_unlabelled_excludes_labelled_and_val(dataset: Path) -> None:
    recipe = make_recipe(dataset)
    for root in ("", str(dataset / "images" / "..")):
        data = open_run_data(replace(recipe, data=replace(recipe.data, unlabelled="*", unlabelled_root=root)))
        assert [sample.image.stem for sample in data.unlabelled] == [f"unlabelled{index}" for index in range(4)]


def test_all_missing_images_of_a_split_are_named(dataset: Path) -> None:
    (dataset / "splits/labelled.txt").write_text("nobody\nlabelled0\nnowhere\n")
    with pytest.raises(MissingImagesError, match="2 of 3 images do not exist: 'nobody', 'nowhere'") as caught:
        open_dataset(dataset).split("labelled")
    assert caught.value.missing == ("nobody", "nowhere")
    assert [sample.name for sample in caught.value.samples] == ["labelled0"]


def test_split_without_existing_images_points_at_data_root(dataset: Path) -> None:
    (dataset / "splits/labelled.txt").write_text("nobody\nnowhere\n")
    with pytest.raises(DatasetError, match=r"none of the 2 images exists, the first is 'nobody'; check data\.root"):
        open_dataset(dataset).split("labelled")


@pytest.mark.parametrize(
    ("text", "message"), [("", "is empty"), ("labelled0\nlabelled0\n", "'labelled0' is listed twice")]
)
def test_invalid_split_file_is_rejected(dataset: Path, text: str, message: str) -> None:
    (dataset / "splits/labelled.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        open_dataset(dataset).split("labelled")


def test_unknown_split_error_lists_existing_splits(dataset: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"no such split; existing splits: labelled, unlabelled, val; .*data\.labelled"
    ):
        open_dataset(dataset).split("labeld")


def test_hidden_files_that_macos_adds_are_ignored(dataset: Path) -> None:
    data = open_dataset(dataset)
    splits, images = data.splits(), [sample.name for sample in data.split(EVERYTHING)]
    for folder, name in (("splits", "._labelled.txt"), ("images", "._labelled0.png"), ("masks", "._labelled0.png")):
        (dataset / folder / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
        (dataset / folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    data = open_dataset(dataset)
    assert data.splits() == splits
    assert [sample.name for sample in data.split(EVERYTHING)] == images


def test_image_in_two_splits_is_named(dataset: Path) -> None:
    (dataset / "splits/val.txt").write_text("labelled0\n")
    data = open_dataset(dataset)
    with pytest.raises(DatasetError, match="'labelled0' is in two splits, labelled and val"):
        check_disjoint(("labelled", data.split("labelled")), ("val", data.split("val")))


def test_image_in_two_splits_is_found_through_different_spellings_of_the_root(dataset: Path) -> None:
    data = open_dataset(dataset)
    other = open_dataset(dataset / "images" / "..")
    with pytest.raises(DatasetError, match="in two splits"):
        check_disjoint(("labelled", data.split("labelled")), ("unlabelled", other.split("labelled")))


def test_upper_case_suffix_is_found(dataset: Path) -> None:
    (dataset / "images/labelled0.png").rename(dataset / "images/labelled0.PNG")
    data = open_dataset(dataset)
    assert data.read(data.split("labelled")[0]).shape == (48, 48, 3)


def test_names_may_contain_spaces_and_dots(dataset: Path) -> None:
    for kind in ("images", "masks"):
        (dataset / kind / "labelled0.png").rename(dataset / kind / "my photo.v2 1.png")
    (dataset / "splits/labelled.txt").write_text("my photo.v2 1\n")
    data = open_dataset(dataset)
    assert data.has_mask(data.split("labelled")[0])


def test_names_may_contain_folders(dataset: Path) -> None:
    for kind in ("images", "masks"):
        (dataset / kind / "a").mkdir()
        (dataset / kind / "labelled0.png").rename(dataset / kind / "a" / "0.png")
    (dataset / "splits/labelled.txt").write_text("a/0\n")
    data = open_dataset(dataset)
    assert data.has_mask(data.split("labelled")[0])
