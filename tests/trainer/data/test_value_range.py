"""The recipe's data.range: training, evaluation and prediction read the same pixels; without it, no run starts."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.conftest import make_recipe, write_dataset
from trainer.__main__ import main
from trainer.checkpoint import load, save
from trainer.commands.predict import predict
from trainer.config import Recipe
from trainer.data.decode import ImageError, UndeclaredRangeError
from trainer.models.segmenter import build_segmenter
from trainer.run_data import open_run_data

WHITE = 16 * 255.0


@pytest.fixture
def greys(tmp_path: Path) -> Path:
    """The tiny data set in grey, 8 bits."""
    root = write_dataset(tmp_path / "greys")
    for path in (root / "images").iterdir():
        with Image.open(path) as image:
            image.convert("L").save(path)
    return root


@pytest.fixture
def floats(greys: Path, tmp_path: Path) -> Path:
    """The same images as floats, 16 times as large; half a step more, so that rounding changes nothing."""
    root = shutil.copytree(greys, tmp_path / "floats")
    for path in (root / "images").iterdir():
        with Image.open(path) as image:
            values_HW = np.asarray(image).astype(np.float32) * 16 * (255 / 256) + 8
        path.unlink()
        Image.fromarray(values_HW).save(path.with_suffix(".tif"))
    return root


def recipe_for(root: Path, white: float = 0.0) -> Recipe:
    recipe = make_recipe(root)
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, range=(0.0, white)))


def test_floats_are_read_as_the_same_pixels_as_their_8_bit_copies(greys: Path, floats: Path) -> None:
    expected, found = open_run_data(recipe_for(greys)), open_run_data(recipe_for(floats, WHITE))
    for role in ("labelled", "unlabelled", "val"):
        for one, other in zip(getattr(expected, role), getattr(found, role), strict=True):
            np.testing.assert_array_equal(expected.dataset.read(one), found.dataset.read(other))


def test_run_without_a_range_ends_before_the_first_step(floats: Path, greys: Path) -> None:
    with pytest.raises(UndeclaredRangeError, match=r"set data\.range = \[BLACK, WHITE\] in the recipe"):
        open_run_data(recipe_for(floats))
    recipe = recipe_for(greys)
    apart = dataclasses.replace(recipe.data, unlabelled_root=str(floats / "images"), unlabelled="*")
    with pytest.raises(UndeclaredRangeError):
        open_run_data(dataclasses.replace(recipe, data=apart))
    data = open_run_data(dataclasses.replace(recipe, data=dataclasses.replace(apart, range=(0.0, WHITE))))
    assert data.unlabelled_dataset.read(data.unlabelled[0]).max() > 200


def test_checkpoint_carries_the_range_to_predict_and_evaluate(
    greys: Path, floats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    masks, scores = {}, {}
    for root, white in ((greys, 0.0), (floats, WHITE)):
        recipe, file = recipe_for(root, white), tmp_path / root.name / "model.safetensors"
        torch.manual_seed(0)
        data = open_run_data(recipe)
        model = build_segmenter(recipe.model, 2).eval()
        save(file, model, data.dataset.taxonomy, metrics={}, recipe=recipe, data_fingerprint="")
        checkpoint = load(file)
        assert checkpoint.value_range == ((0.0, WHITE) if white else None)
        (mask,) = predict(checkpoint, [data.val[0].image], tmp_path / "out" / root.name)
        masks[root.name] = np.asarray(Image.open(mask))
        assert main(["evaluate", str(file), "--data", str(root), "--json", "--device", "cpu"]) == 0
        scores[root.name] = json.loads(capsys.readouterr().out)
    np.testing.assert_array_equal(masks["greys"], masks["floats"])
    assert scores["greys"] == scores["floats"]
    with pytest.raises(ImageError, match="data\\.range"):
        next(predict(load(tmp_path / "greys/model.safetensors"), [floats / "images/val0.tif"], tmp_path / "none"))
