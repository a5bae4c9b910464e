"""check-data: each kind of fault is reported with names and remedy, and a valid data set passes."""

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.trainer.conftest import make_recipe, write_dataset
from tests.trainer.layouts import LAYOUTS, write_layout
from trainer.__main__ import main
from trainer.commands.check_data import show
from trainer.data.check.inspection import _propose_range, inspect_dataset
from trainer.data.check.problems import Problem, find_problems
from trainer.data.dataset import DatasetError
from trainer.data.readers.layouts import open_dataset
from trainer.run_data import open_run_data


def problems(dataset: Path, crop: tuple[int, int] = (32, 32)) -> dict[str, Problem]:
    return {problem.kind: problem for problem in find_problems(inspect_dataset(open_dataset(dataset)), crop)}


def save(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def test_valid_dataset_has_no_problems(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert problems(dataset) == {}
    assert main(["check-data", str(dataset), "--crop", "32", "32"]) == 0
    said = capsys.readouterr().out
    assert "errors: 0, warnings: 0" in said
    assert "bright" in said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_pass_without_errors(layout: str, tmp_path: Path) -> None:
    root = write_layout(tmp_path / layout, layout)
    assert {problem.severity for problem in problems(root).values()} <= {"warning"}


def broken_image(root: Path) -> None:
    (root / "images/unlabelled0.png").write_bytes(b"broken")


def value_outside(root: Path) -> None:
    save(root / "masks/val0.png", np.full((48, 48), 9))


def missing_images(root: Path) -> None:
    for name in ("unlabelled1", "unlabelled2"):
        (root / f"images/{name}.png").unlink()


def missing_masks(root: Path) -> None:
    for name in ("labelled0", "labelled3"):
        (root / f"masks/{name}.png").unlink()


def in_two_splits(root: Path) -> None:
    with (root / "splits/unlabelled.txt").open("a") as file:
        file.write("labelled1\n")


def same_pixels_in_val(root: Path) -> None:
    image = Image.open(root / "images/val0.png")
    image.save(root / "images/labelled2.png", compress_level=0)


def twice_in_a_split(root: Path) -> None:
    (root / "images/unlabelled3.png").write_bytes((root / "images/unlabelled0.png").read_bytes())


def empty_mask(root: Path) -> None:
    save(root / "masks/labelled2.png", np.full((48, 48), 255))


def empty_list(root: Path) -> None:
    (root / "splits/val.txt").write_text("")


def absent_class(root: Path) -> None:
    for path in (root / "masks").glob("val*.png"):
        save(path, np.zeros((48, 48)))


def rare_class(root: Path) -> None:
    for path in (root / "masks").glob("labelled*.png"):
        mask_HW = np.zeros((48, 48))
        mask_HW[0, :4] = 1
        save(path, mask_HW)


def small_image(root: Path) -> None:
    save(root / "images/unlabelled1.png", np.zeros((20, 40, 3)))


def no_val_list(root: Path) -> None:
    (root / "splits/val.txt").unlink()


def no_unlabelled_list(root: Path) -> None:
    (root / "splits/unlabelled.txt").unlink()


def no_labelled_list(root: Path) -> None:
    (root / "splits/labelled.txt").unlink()


FAULTS: list[tuple[Callable[[Path], None], str, str, tuple[str, ...]]] = [
    (broken_image, "unreadable image", "error", ("unlabelled0",)),
    (value_outside, "unusable mask", "error", ("val0",)),
    (missing_images, "missing image", "error", ("unlabelled1", "unlabelled2")),
    (missing_masks, "missing mask", "error", ("labelled0.png", "labelled3.png")),
    (in_two_splits, "shared", "error", ("labelled1",)),
    (same_pixels_in_val, "shared", "error", ("labelled2 = val0 (the same pixels)",)),
    (twice_in_a_split, "duplicate", "warning", ("unlabelled0 = unlabelled3",)),
    (empty_mask, "empty mask", "warning", ("labelled2",)),
    (empty_list, "split", "error", ("val",)),
    (absent_class, "absent class", "warning", ("bright",)),
    (rare_class, "rare class", "warning", ("bright 0.17%",)),
    (no_val_list, "missing split", "warning", ("val",)),
    (no_labelled_list, "missing split", "error", ("labelled",)),
    (no_unlabelled_list, "missing split", "warning", ("unlabelled",)),
    (small_image, "small image", "warning", ("unlabelled1 40x20",)),
]


@pytest.mark.parametrize(("plant", "kind", "severity", "names"), FAULTS)
def test_single_fault_is_the_only_problem_reported(
    plant: Callable[[Path], None], kind: str, severity: str, names: tuple[str, ...], dataset: Path
) -> None:
    plant(dataset)
    found = problems(dataset)
    assert list(found) == [kind]
    assert found[kind].severity == severity
    assert len(found[kind].names) == len(names)
    assert all(reported.endswith(name) for reported, name in zip(found[kind].names, names, strict=True))
    assert found[kind].remedy or ";" in found[kind].message


def test_crop_is_checked_only_if_it_is_given(dataset: Path) -> None:
    small_image(dataset)
    assert find_problems(inspect_dataset(open_dataset(dataset))) == []


def test_split_of_another_name_may_be_the_validation_split(dataset: Path) -> None:
    (dataset / "splits/val.txt").rename(dataset / "splits/held_out.txt")
    assert problems(dataset)["missing split"].severity == "warning"


def test_data_without_validation_pass_with_the_remedy_and_train(dataset: Path) -> None:
    no_val_list(dataset)
    assert 'data.val = ""' in problems(dataset)["missing split"].remedy
    assert main(["check-data", str(dataset), "--crop", "32", "32"]) == 0
    recipe = make_recipe(dataset)
    assert open_run_data(replace(recipe, data=replace(recipe.data, val=""))).val == ()


VAL_FOLDERS = {
    "voc": ("ImageSets/Segmentation/val.txt", "names in ImageSets/Segmentation/val.txt instead of train.txt"),
    "cityscapes": ("leftImg8bit/val", "move some cities from leftImg8bit/train to leftImg8bit/val"),
    "ade20k": ("images/validation", "move some images to images/validation"),
    "coco": ("val2017", "move some images from train2017 to val2017"),
}
"""What makes the layout's own split `val`, and the remedy without it."""


@pytest.mark.parametrize("layout", VAL_FOLDERS)
def test_missing_val_split_has_the_remedy_of_the_layout(layout: str, tmp_path: Path) -> None:
    root = write_layout(tmp_path / layout, layout)
    shutil.rmtree(root / "splits")
    path, remedy = VAL_FOLDERS[layout]
    (root / path).rename(tmp_path / "elsewhere")
    found = [problem for problem in find_problems(inspect_dataset(open_dataset(root))) if problem.names == ("val",)]
    assert [remedy in problem.remedy for problem in found] == [True]


def test_missing_val_split_names_the_list_of_labelled_images(dataset: Path) -> None:
    no_val_list(dataset)
    (dataset / "splits/labelled.txt").rename(dataset / "splits/train.txt")
    wanted = "list some images with masks in splits/val.txt instead of splits/train.txt"
    assert problems(dataset)["missing split"].remedy.startswith(f"{wanted}; without it,")


def test_masks_in_another_format_are_named(dataset: Path) -> None:
    path = dataset / "masks/labelled1.png"
    path.rename(path.with_suffix(".jpg"))
    remedy = problems(dataset)["missing mask"].remedy
    assert remedy == f"{path.with_suffix('.jpg')} is no PNG: export the masks as PNG, since JPEG changes class ids"
    path.with_suffix(".jpg").rename(path.with_suffix(".tif"))
    remedy = problems(dataset)["missing mask"].remedy
    assert remedy == f"{path.with_suffix('.tif')} is no PNG: export the masks as PNG, with the same ids"


def test_mask_whose_name_differs_in_case_is_named(dataset: Path) -> None:
    path = dataset / "masks/labelled1.png"
    path.rename(path.with_name("Labelled1.PNG"))
    wanted = f"{path.with_name('Labelled1.PNG')} differs in upper and lower case: rename it to labelled1.png"
    if not path.exists():  # a file system that ignores case finds it
        assert problems(dataset)["missing mask"].remedy == wanted


def test_missing_image_folder_is_named(dataset: Path) -> None:
    (dataset / "images").rename(dataset / "photos")
    assert f"there is no folder {dataset / 'images'}" in problems(dataset)["missing image"].remedy
    with pytest.raises(DatasetError, match="there is no folder"):
        open_dataset(dataset).split("labelled")


def test_long_lists_are_cut(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (dataset / "splits/unlabelled.txt").open("a") as names:
        names.writelines(f"none{number}\n" for number in range(1000))
    assert main(["check-data", str(dataset)]) == 1
    assert "    and 995 more; --json lists all" in capsys.readouterr().out.splitlines()
    with pytest.raises(DatasetError, match="'none4' and 995 more; add them"):
        open_dataset(dataset).split("unlabelled")


def test_many_problems_of_a_kind_are_cut(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mask in (dataset / "masks").iterdir():
        mask.write_bytes(b"broken")
    count = len(list((dataset / "masks").iterdir()))
    assert main(["check-data", str(dataset)]) == 1
    assert f"unusable mask: {count - 5} more; --json lists all" in capsys.readouterr().out.splitlines()


def test_check_data_prints_all_errors_and_exits_with_1(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for plant in (broken_image, value_outside, missing_masks, rare_class):
        plant(dataset)
    (dataset / "masks/labelled0.png").unlink(missing_ok=True)
    assert main(["check-data", str(dataset)]) == 1
    said = capsys.readouterr().out
    for name in ("unlabelled0.png", "val0.png", "labelled0.png"):
        assert name in said
    assert "contains 9 (2304 pixels)" in said


def test_json_output_has_counts_sizes_and_shares(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_image(dataset)
    assert main(["check-data", str(dataset), "--crop", "32", "32", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is True
    assert said["splits"]["labelled"] == {"role": "labelled", "images": 4, "labelled": 4, "missing": 0}
    assert said["splits"]["unlabelled"]["labelled"] == 0
    assert said["sizes"] == {"smallest": [40, 20], "median": [48, 48], "largest": [48, 48]}
    mask_share = np.mean([np.asarray(Image.open(path)) for path in (dataset / "masks").glob("labelled*.png")])
    assert said["classes"][1]["labelled"] == pytest.approx(mask_share)
    assert sum(entry["val"] for entry in said["classes"]) == pytest.approx(1)
    assert said["findings"][0]["names"] == ["unlabelled1 40x20"]


def test_splits_of_different_settings_may_share_images(tmp_path: Path) -> None:
    """An image may be labelled in one setting and unlabelled in another, and both may be in train."""
    root = write_dataset(tmp_path / "dataset")
    for setting, (labelled, unlabelled) in {"few": ("0", "123"), "many": ("012", "3")}.items():
        (root / "splits" / setting).mkdir()
        for name, images in (("labelled", labelled), ("unlabelled", unlabelled)):
            lines = "".join(f"labelled{index}\n" for index in images)
            (root / "splits" / setting / f"{name}.txt").write_text(lines)
    (root / "splits/train.txt").write_text("".join(f"labelled{index}\n" for index in range(4)))
    assert problems(root) == {}


def test_folder_without_splits_fails_with_remedy(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (dataset / "splits").glob("*.txt"):
        path.unlink()
    assert main(["check-data", str(dataset)]) == 1
    assert "add splits/labelled.txt, unlabelled.txt and val.txt" in capsys.readouterr().out


@pytest.mark.parametrize(("encoding", "bar"), [("ascii", "#"), ("cp1252", "#"), ("utf-8", "█")])
def test_bars_use_characters_of_the_console_encoding(dataset: Path, encoding: str, bar: str) -> None:
    stored = io.BytesIO()
    stream = io.TextIOWrapper(stored, encoding=encoding)
    show(inspect_dataset(open_dataset(dataset)), [], Console(file=stream, width=120))
    stream.flush()
    assert bar * 30 in stored.getvalue().decode(encoding)


def test_names_with_extension_get_a_specific_remedy(dataset: Path) -> None:
    (dataset / "splits/labelled.txt").write_text("labelled0.png\n")
    assert problems(dataset)["missing image"].remedy == "write names without extension: labelled0"


def store_as(root: Path, factor: float, kind: type) -> None:
    """Replace the images by grey TIFFs of other numbers."""
    for path in (root / "images").iterdir():
        with Image.open(path) as image:
            values_HW = np.asarray(image.convert("L")).astype(np.float64) * factor
        path.unlink()
        Image.fromarray(values_HW.astype(kind)).save(path.with_suffix(".tif"))


def test_range_of_floats_is_proposed_as_a_line_to_paste(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store_as(dataset, 16, np.float32)
    assert main(["check-data", str(dataset), "--crop", "32", "32"]) == 1
    said = capsys.readouterr().out
    assert "error: 10 images store numbers (floats, 32 or 12 bits)" in said
    low, high = map(float, re.findall(r"add range = \[(.+), (.+)\] to \[data\]", said)[0])
    assert 0 <= low < 300
    assert 3500 < high <= 16 * 255
    assert "errors: 1, warnings: 0" in said
    command = ["check-data", str(dataset), "--crop", "32", "32", "--range", str(low), str(high)]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []


def test_masks_of_images_without_a_range_are_checked_too(dataset: Path) -> None:
    store_as(dataset, 16, np.float32)
    value_outside(dataset)
    assert {"undeclared range", "unusable mask"} == set(problems(dataset))


@pytest.mark.parametrize(
    ("usual_values", "expected"),
    [
        ([], None),
        ([(10.0, 9990.000000000002)], (10.0, 9990.0)),
        ([(104.0, 3890.0), (98.7, 3777.0)], (90.0, 3890.0)),
        ([(0.0012, 0.98)], (0.001, 0.98)),
        ([(7.0, 7.0)], (7.0, 8.0)),
        ([(-1e30, -1e30)], (-1e30, -1e30 + 1e27)),
        ([(-12.34, 1e9)], (-1e7, 1e9)),
    ],
)
def test_proposed_range_is_rounded_outwards(
    usual_values: list[tuple[float, float]], expected: tuple[float, float] | None
) -> None:
    assert _propose_range(usual_values) == expected


def test_proposed_range_of_small_numbers_can_be_pasted(dataset: Path) -> None:
    store_as(dataset, -1e-7, np.float32)
    remedy = problems(dataset)["undeclared range"].remedy
    [command] = re.findall("--range (.+) to this command", remedy)
    assert f"range = [{command.replace(' ', ', ')}] to [data]" in remedy
    assert main(["check-data", str(dataset), "--range", *command.split()]) == 0


def test_12_bits_in_files_of_16_are_reported_as_nearly_black(dataset: Path) -> None:
    store_as(dataset, 16, np.uint16)
    problem = problems(dataset)["nearly black"]
    assert (problem.severity, len(problem.names)) == ("warning", 10)
    assert "range = [0, 4095]" in problem.remedy
    declared = inspect_dataset(open_dataset(dataset, value_range=(0.0, 4095.0)))
    assert find_problems(declared, (32, 32)) == []


def test_range_that_ends_below_its_start_is_an_error(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(dataset), "--range", "5", "1"]) != 0
    assert "--range 5 1: the first value must be below the second" in capsys.readouterr().err
