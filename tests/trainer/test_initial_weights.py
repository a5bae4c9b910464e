"""Start from a checkpoint with the same or other classes: what is carried over, and what is learnt."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image

from tests.trainer.conftest import make_recipe, write_dataset
from tests.trainer.test_train import run
from trainer import checkpoint
from trainer.__main__ import main
from trainer.checkpoint import CheckpointError
from trainer.config import Recipe, RecipeError
from trainer.initial_weights import load_initial_weights
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.recipe_file import recipe_from_dict
from trainer.taxonomy import Taxonomy, distinct_colors

IMAGE_BCHW = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def taxonomy(*names: str) -> Taxonomy:
    return Taxonomy(names, tuple(distinct_colors(len(names))))


def network(classes: int, seed: int) -> Segmenter:
    torch.manual_seed(seed)
    return build_segmenter(make_recipe(Path("nowhere")).model, classes).eval()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Segmenter]:
    """A checkpoint of the classes road, sky and car, and its network."""
    model, path = network(3, seed=0), tmp_path / "model.safetensors"
    classes = taxonomy("road", "sky", "car")
    checkpoint.save(path, model, classes, metrics={}, recipe=make_recipe(tmp_path), data_fingerprint="0" * 64)
    return path, model


def load(path: Path, *names: str, **init_classes: list[str]) -> tuple[Segmenter, str]:
    model = network(len(names), seed=1)
    return model, load_initial_weights(path, model, taxonomy(*names), init_classes)


def test_equal_lists_give_the_checkpoints_weights(saved: tuple[Path, Segmenter]) -> None:
    model, sentence = load(saved[0], "road", "sky", "car")
    expected = saved[1].state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert sentence == "init: all weights come from model.safetensors, with its 3 classes"


def test_logits_of_known_classes_are_the_checkpoints_in_the_new_order(saved: tuple[Path, Segmenter]) -> None:
    model, sentence = load(saved[0], "weed", "heaven", "road", heaven=["sky"])
    with torch.inference_mode():
        new, old = model(IMAGE_BCHW), saved[1](IMAGE_BCHW)
    assert torch.equal(new[:, 1:], old[:, [1, 0]])
    assert sentence.endswith("carried over: heaven = sky, road; new: weed; not used: car")


def test_merge_takes_precedence_over_an_equal_name(saved: tuple[Path, Segmenter]) -> None:
    model, sentence = load(saved[0], "car", "sky", car=["car", "road"])
    with torch.inference_mode():
        new, old = model(IMAGE_BCHW), saved[1](IMAGE_BCHW)
    assert torch.allclose(new[:, 0], old[:, [0, 2]].mean(dim=1) + np.log(2), atol=1e-5)
    assert "carried over: car = car + road, sky" in sentence


@pytest.mark.parametrize("names", [("weed", "crop"), ("weed", "sky")], ids=["none", "one"])
def test_fewer_than_two_common_classes_give_a_fresh_last_layer(
    saved: tuple[Path, Segmenter], names: tuple[str, ...]
) -> None:
    model, sentence = load(saved[0], *names)
    untouched, old, new = network(2, seed=1).state_dict(), saved[1].state_dict(), model.state_dict()
    for name, tensor in new.items():
        assert torch.equal(tensor, (untouched if name.startswith("head.classify.2") else old)[name]), name
    assert "the last layer starts fresh" in sentence


@pytest.mark.parametrize(
    ("init_classes", "message"),
    [
        ({"rode": ["road"]}, "init_classes: the data set has no class rode; its classes are road, weed"),
        ({"weed": ["plant"]}, "init_classes: the checkpoint has no class plant; its classes are road, sky, car"),
    ],
)
def test_unknown_class_is_an_error(
    saved: tuple[Path, Segmenter], init_classes: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load(saved[0], "road", "weed", **init_classes)


def test_checkpoint_of_another_network_is_an_error(saved: tuple[Path, Segmenter]) -> None:
    wide = make_recipe(Path("nowhere"), model={**make_recipe(Path()).as_dict()["model"], "features": 16}).model
    with pytest.raises(CheckpointError, match=r"(?s)does not fit the recipe's model .*use the \[model\] table"):
        load_initial_weights(saved[0], build_segmenter(wide, 2), taxonomy("road", "sky"), {})


def add_class(root: Path) -> None:
    """Call `dark` night, and paint a third class, green, into the lower half of every image."""
    (root / "classes.toml").write_text(
        '[[classes]]\nname = "green"\ncolor = [0, 255, 0]\n[[classes]]\nname = "bright"\ncolor = [240, 200, 80]\n'
        '[[classes]]\nname = "night"\ncolor = [40, 40, 90]\n'
    )
    for path in (root / "images").iterdir():
        image_HWC = np.asarray(Image.open(path)).copy()
        image_HWC[24:] = (0, 200, 0)
        Image.fromarray(image_HWC).save(path)
        mask_path = root / "masks" / path.name
        if mask_path.exists():
            mask_HW = np.where(np.asarray(Image.open(mask_path)) == 1, 1, 2).astype(np.uint8)
            mask_HW[24:] = 0
            Image.fromarray(mask_HW).save(mask_path)


def test_run_keeps_known_classes_and_learns_a_new_one(tmp_path: Path) -> None:
    first = run(recipe(write_dataset(tmp_path / "old"), steps=30), tmp_path / "first")[-1]["checkpoint"]
    add_class(write_dataset(tmp_path / "new"))
    start = run(recipe(tmp_path / "new", first, steps=1, lr_encoder=1e-9), tmp_path / "start")
    notices = [event["message"] for event in start if event["event"] == "notice"]
    assert "carried over: bright, night = dark; new: green" in notices[0]
    at_start, at_end = scores(start), scores(run(recipe(tmp_path / "new", first, steps=40), tmp_path / "end"))
    assert at_start["green"] < 0.05, "the new class wins almost nowhere"
    assert min(at_start["night"], at_start["bright"]) > 0.3, "the known classes win their pixels"
    assert at_end["green"] > 0.3, "it was learnt"


def recipe(root: Path, init: str = "", **train: Any) -> Recipe:
    """Few fast steps; Adam moves a weight by at most the learning rate per step."""
    table = make_recipe(root, "supervised", **{"lr_encoder": 6e-3, "ema_decay": 0.5, **train}).as_dict()
    return recipe_from_dict(table | ({"init": init, "init_classes": {"night": ["dark"]}} if init else {}))


def scores(events: list[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = next(event for event in events if event["event"] == "evaluation")["per_class"]
    return found


def test_init_is_read_from_the_recipe_file_and_the_command_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run(recipe(dataset, steps=30), tmp_path / "first")[-1]["checkpoint"]
    table = make_recipe(dataset, "supervised", steps=1, lr_encoder=1e-9).as_dict() | {"init": path}
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(table))
    again = ["train", str(tmp_path / "recipe.toml"), "--out"]
    assert main([*again, str(tmp_path / "second")]) == 0
    assert main([*again, str(tmp_path / "second")]) == 1, "a finished run is not overwritten"
    assert checkpoint.load(tmp_path / "second/model.safetensors").metrics["miou"] > 0.9
    capsys.readouterr()
    swapped = ["--set", 'init_classes={ dark = "bright", bright = ["dark"] }']
    assert main([*again, str(tmp_path / "third"), *swapped]) == 0
    notice = next(json.loads(line) for line in capsys.readouterr().out.splitlines() if '"notice"' in line)
    assert "carried over: dark = bright, bright = dark" in notice["message"]
    assert checkpoint.load(tmp_path / "third/model.safetensors").metrics["miou"] < 0.1
