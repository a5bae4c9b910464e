"""Labels that cannot be learnt: 0/255 masks, one class alone, ignored pixels only."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.conftest import make_recipe
from trainer.__main__ import main
from trainer.data.dataset import DatasetError
from trainer.data.readers.layouts import open_dataset
from trainer.run_data import open_run_data

Change = Callable[[np.ndarray], np.ndarray]
QUESTION = (
    "is 255 a class? Then list the values of all classes in classes.toml, values = [0] for 'dark' and "
    "values = [255] for 'bright'; pixels to ignore need a value that is none of them (ignore_values)"
)
ONE_CLASS = "the masks show one class only, 'dark', and one class alone cannot be learnt"


def repaint(dataset: Path, split: str, change: Change) -> None:
    for path in (dataset / "masks").glob(f"{split}*.png"):
        Image.fromarray(change(np.asarray(Image.open(path))).astype(np.uint8)).save(path)


def binary(mask_HW: np.ndarray) -> np.ndarray:
    return mask_HW * 255


def constant(value: int) -> Change:
    return lambda mask_HW: np.full_like(mask_HW, value)


def run_error(dataset: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        open_run_data(make_recipe(dataset))
    return str(caught.value)


def printed_errors(dataset: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["check-data", str(dataset), "--crop", "32", "32"]) == 1
    return capsys.readouterr().out


def test_binary_masks_lead_to_the_question_whether_255_is_a_class(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repaint(dataset, "", binary)
    printed = printed_errors(dataset, capsys)
    assert f"error: labelled: {ONE_CLASS}; the other pixels are ignored" in printed
    assert QUESTION in printed
    assert "use a classes.toml without them" not in printed
    assert f"labelled: {ONE_CLASS}; the other pixels are ignored; {QUESTION}" in run_error(dataset)


@pytest.mark.parametrize(("stored", "start"), [(1, ONE_CLASS), (0, "every pixel of the masks is ignored")])
def test_zero_that_reduce_zero_ignores_leads_to_its_removal(dataset: Path, stored: int, start: str) -> None:
    text = (dataset / "classes.toml").read_text()
    (dataset / "classes.toml").write_text(f"reduce_zero = true\n{text}")
    repaint(dataset, "", lambda mask_HW: mask_HW * stored)
    assert start in (error := run_error(dataset))
    assert "is 0 a class? Then use a classes.toml without reduce_zero" in error
    assert "values" not in error


def test_remedy_for_binary_masks_gives_two_classes(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = open_dataset(dataset).read_pair(open_dataset(dataset).split("labelled")[0])[1]
    repaint(dataset, "", binary)
    (dataset / "classes.toml").write_text(
        "ignore_values = [128]\n"
        '[[classes]]\nname = "dark"\ncolor = [40, 40, 90]\nvalues = [0]\n'
        '[[classes]]\nname = "bright"\ncolor = [240, 200, 80]\nvalues = [255]\n'
    )
    data = open_dataset(dataset)
    assert np.array_equal(data.read_pair(data.split("labelled")[0])[1], before)
    assert main(["check-data", str(dataset), "--crop", "32", "32"]) == 0
    assert "errors: 0, warnings: 0" in capsys.readouterr().out


def test_one_class_alone_is_an_error(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repaint(dataset, "labelled", constant(0))
    assert ONE_CLASS in printed_errors(dataset, capsys)
    assert "what surrounds an object is a class" in run_error(dataset)
    (dataset / "classes.toml").write_text('[[classes]]\nname = "dark"\ncolor = [1, 2, 3]\n')
    repaint(dataset, "", constant(0))
    assert ONE_CLASS in run_error(dataset)


@pytest.mark.parametrize("split", ["labelled", "val"])
def test_split_without_a_labelled_pixel_is_an_error(
    split: str, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repaint(dataset, split, constant(255))
    message = f"{split}: every pixel of the masks is ignored, so that they label nothing"
    assert f"error: {message}" in printed_errors(dataset, capsys)
    assert f"{message}; label the images; or is 255 a class?" in run_error(dataset)


def test_val_may_show_one_class(dataset: Path) -> None:
    repaint(dataset, "val", constant(1))
    assert len(open_run_data(make_recipe(dataset)).val) == 2


def test_binary_masks_of_val_are_a_warning_with_the_question(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repaint(dataset, "val", binary)
    assert main(["check-data", str(dataset), "--crop", "32", "32"]) == 0
    printed = capsys.readouterr().out
    assert "warning: val: the masks show one class only, 'dark', and ignored pixels" in printed
    assert QUESTION in printed


def test_question_for_masks_of_colours_names_the_colour(dataset: Path) -> None:
    text = (dataset / "classes.toml").read_text()
    (dataset / "classes.toml").write_text(f'masks = "colours"\nignore_colors = [[0, 0, 0]]\n{text}')
    for path in (dataset / "masks").glob("*.png"):
        mask_HW = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask_HW[..., None] == 0, (40, 40, 90), 0).astype(np.uint8)).save(path)
    assert "is [0, 0, 0] a class? Then list it in the colors of the class" in run_error(dataset)


def test_question_for_several_classes_names_no_other_class(dataset: Path) -> None:
    with (dataset / "classes.toml").open("a") as file:
        file.write('[[classes]]\nname = "third"\ncolor = [1, 2, 3]\n')
    repaint(dataset, "", binary)
    assert "values = [0] for 'dark' and values = [255] for the other class" in run_error(dataset)


def test_evaluating_a_split_without_labels_is_an_error(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trainer.events import NullEvents
    from trainer.train import train

    checkpoint = train(make_recipe(dataset, steps=1), dataset / "run", NullEvents())
    repaint(dataset, "val", constant(255))
    assert main(["evaluate", str(checkpoint), "--data", str(dataset)]) == 1
    assert "every pixel of the masks of val is ignored" in capsys.readouterr().out
