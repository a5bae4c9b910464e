"""The recipes of the repository: networks, headers, schedules, and two steps in the layout of their data set."""

import tomllib
from collections.abc import Iterable
from functools import cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.trainer.conftest import TINY_VIT, write_dataset
from tests.trainer.layouts import OFFICIAL, write_layout
from tests.trainer.list_recipes import README, RECIPES, header, recipe_files, template_files, written
from trainer.config import Model, Recipe, RecipeError
from trainer.events import Events
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.recipe_file import load_recipe
from trainer.train import train

IDS = [path.relative_to(RECIPES).with_suffix("").as_posix() for path in recipe_files()]
UNLABELLED = {
    "pascal": {"92": 10490, "183": 10399, "366": 10216, "732": 9850, "1464": 9118},
    "cityscapes": {"1_16": 2789, "1_8": 2603, "1_4": 2231, "1_2": 1487},
    "ade20k": {"1_64": 19894, "1_32": 19579, "1_16": 18947, "1_8": 17684, "1_4": 15158},
    "coco": {"1_512": 118055, "1_256": 117824, "1_128": 117362, "1_64": 116438, "1_32": 114590},
}
"""Number of images in the official unlabelled lists: all training images except the labelled ones."""
EPOCHS = {"pascal": 60, "cityscapes": 180, "ade20k": 60, "coco": 20}
SUPERVISED_IMAGES = {"pascal": 3000, "cityscapes": 3000, "ade20k": 6000, "coco": 30000}
"""Images of one epoch of the labels-only baseline: the labelled list, repeated."""
LARGE_SCALE = {"cityscapes_extra": (19998, 60), "coco_extra": (123403, 20), "ade20k_coco": (118287, 20)}
LARGE_SCALE["ade20k_coco_all"] = (118287 + 123403, 20)
"""Unlabelled images and epochs."""
GPUS = 4


def steps_of_an_epoch(images: int, batch: int) -> int:
    """The authors' steps: each of four GPUs gets a quarter of the list, rounded up, and drops an incomplete batch."""
    return -(-images // GPUS) // (batch // GPUS)


class Kind(NamedTuple):
    """The settings that select a code path of a training step."""

    layout: str
    method: str
    loss: str
    streams: int
    dropout: str
    dropout_place: str
    undropped: bool
    adaptive: bool
    frozen: bool
    teacher: bool
    other_images: bool
    window: bool


def kind(recipe: Recipe) -> Kind:
    settings, semi = recipe.unimatch, recipe.method != "supervised"
    v2 = recipe.method == "unimatch_v2"
    return Kind(
        layout=recipe.data.format,
        method=recipe.method,
        loss=recipe.loss.kind,
        streams=settings.streams if v2 else 0,
        dropout=settings.dropout if v2 else "",
        dropout_place=settings.dropout_place if v2 else "",
        undropped=v2 and settings.undropped_fraction > 0,
        adaptive=semi and settings.adaptive_threshold,
        frozen=recipe.train.freeze_encoder,
        teacher=recipe.train.ema_decay > 0,
        other_images=bool(recipe.data.unlabelled_root),
        window=any(recipe.inference.window),
    )


def one_of_each_kind(paths: Iterable[Path]) -> list[Path]:
    return list({kind(load_recipe(path)): path for path in paths}.values())


@cache
def network(encoder: str, features: int, projections: tuple[int, int, int, int]) -> Segmenter:
    """A recipe's network with four blocks; its input and output shapes do not depend on the number of blocks."""
    options = {"depth": 4} if encoder.startswith("vit") else {}
    return build_segmenter(
        Model(encoder=encoder, encoder_options=options, features=features, projections=projections), classes=2
    )


@pytest.mark.parametrize("path", recipe_files(), ids=IDS)
def test_crop_and_window_fit_the_network(path: Path) -> None:
    recipe = load_recipe(path)
    model = recipe.model
    multiple = network(model.encoder, model.features, model.projections).size_multiple
    assert [side % multiple for side in (*recipe.data.crop, *recipe.inference.window)] == [0, 0, 0, 0]


@pytest.mark.parametrize("path", recipe_files(), ids=IDS)
def test_header_has_a_description_and_an_expected_result(path: Path) -> None:
    found = header(path)
    assert found[""]
    assert path.parent == RECIPES or found["Expected"]


@pytest.mark.parametrize("path", template_files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_template_lacks_steps(path: Path) -> None:
    with pytest.raises(RecipeError, match="steps"):
        load_recipe(path)


def test_epoch_is_counted_on_four_gpus() -> None:
    """2789 images are 698 on each GPU (2792 with repetitions), in batches of 2; in one list of batches of 8: 348."""
    assert steps_of_an_epoch(2789, 8) == 349
    assert steps_of_an_epoch(10490, 16) == 655


@pytest.mark.parametrize("folder", UNLABELLED)
def test_schedule_is_the_papers(folder: str) -> None:
    for split, count in UNLABELLED[folder].items():
        for size in ("small", "base"):
            recipe = load_recipe(RECIPES / folder / f"{split}_{size}.toml")
            epoch = steps_of_an_epoch(count, recipe.train.batch_unlabelled)
            assert (recipe.train.steps, recipe.train.evaluate_every) == (EPOCHS[folder] * epoch, epoch)
            assert recipe.data.unlabelled == f"{split}/unlabeled"
            assert recipe.train.lr_reference_batch == recipe.train.batch_labelled
            assert not recipe.train.freeze_encoder


@pytest.mark.parametrize("folder", UNLABELLED)
def test_supervised_baseline_doubles_the_batch_at_the_same_learning_rate(folder: str) -> None:
    alone = load_recipe(RECIPES / folder / "supervised.toml").train
    both = load_recipe(RECIPES / folder / f"{next(iter(UNLABELLED[folder]))}_base.toml").train
    assert alone.batch_labelled == alone.lr_reference_batch == both.batch_labelled + both.batch_unlabelled
    assert alone.lr_encoder == both.lr_encoder
    epoch = steps_of_an_epoch(SUPERVISED_IMAGES[folder], alone.batch_labelled)
    assert (alone.steps, alone.evaluate_every) == (EPOCHS[folder] * epoch, epoch)


@pytest.mark.parametrize("name", ["1_16_small", "1_2_base", "supervised"])
def test_ohem_keeps_200000_pixels_on_each_of_four_gpus(name: str) -> None:
    recipe = load_recipe(RECIPES / "cityscapes" / f"{name}.toml")
    pixels_of_a_gpu = recipe.train.batch_labelled // GPUS * 798 * 798
    assert recipe.data.crop == (798, 798)
    assert round(recipe.loss.ohem_min_kept_share * pixels_of_a_gpu) == 200_000


@pytest.mark.parametrize("name", LARGE_SCALE)
def test_large_scale_run_has_whole_epochs(name: str) -> None:
    train_table = load_recipe(RECIPES / "ablations" / f"large_scale_{name}.toml").train
    images, epochs = LARGE_SCALE[name]
    epoch = steps_of_an_epoch(images, train_table.batch_unlabelled)
    assert (train_table.steps, train_table.evaluate_every) == (epochs * epoch, epoch)


@pytest.mark.parametrize("path", sorted((RECIPES / "ablations").glob("*.toml")), ids=lambda path: path.stem)
def test_ablation_differs_from_its_parent(path: Path) -> None:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    parent = (path.parent / table.pop("extends")).resolve()
    if parent in template_files():
        return
    assert load_recipe(path) != load_recipe(parent)


def test_readme_lists_all_recipes() -> None:
    text = README.read_text(encoding="utf-8")
    assert written(text) == text, "run python -m tests.trainer.list_recipes --write"


@pytest.mark.parametrize("path", one_of_each_kind(recipe_files()), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_two_steps_in_the_layout_of_the_data_set(path: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    recipe = load_recipe(path, tiny(load_recipe(path), root, tmp_path / "other"))
    write_data(recipe, root, tmp_path / "other")
    stream = StringIO()
    with Events(stream=stream) as events:
        checkpoint = train(recipe, tmp_path / "run", events)
    assert checkpoint.is_file()
    assert '"step": 2' in stream.getvalue()


def tiny(recipe: Recipe, root: Path, other: Path) -> list[str]:
    """Overrides for a tiny network, a tiny crop and two steps; the method's settings stay."""
    sets = {
        "data.root": f"'{root.as_posix()}'",
        "data.crop": "[32, 32]",
        "data.workers": "0",
        "inference.window": "[32, 32]" if any(recipe.inference.window) else "[0, 0]",
        "inference.long_side": "48" if recipe.inference.long_side else "0",
        "train.steps": "2",
        "train.batch_labelled": "2",
        "train.batch_unlabelled": "2",
        "train.log_every": "1",
        "train.evaluate_every": "0",
        "train.device": "cpu",
        "train.report": "false",
        "model.encoder_options": "{depth = 2, embed_dim = 24, num_heads = 2, patch_size = 8}",
    }
    sets |= {f"model.{name}": repr(TINY_VIT[name]) for name in ("encoder", "weights", "features", "projections")}
    if recipe.data.unlabelled_root:
        sets["data.unlabelled_root"] = f"'{other.as_posix()}'"
    return [f"{name}={value}" for name, value in sets.items()]


def write_data(recipe: Recipe, root: Path, other: Path) -> None:
    """Write a recipe's data set with its split names, and a folder of other images."""
    if recipe.data.format in OFFICIAL:
        write_layout(root, recipe.data.format)
        first = root / "splits" / OFFICIAL[recipe.data.format][0]
        names = {recipe.data.labelled: first / "labeled.txt", recipe.data.unlabelled: first / "unlabeled.txt"}
    else:
        write_dataset(root)
        splits = root / "splits"
        names = {recipe.data.labelled: splits / "labelled.txt", recipe.data.unlabelled: splits / "unlabelled.txt"}
    for name, source in names.items():
        target = root / "splits" / f"{name}.txt"
        if name != "*" and not target.exists():
            target.parent.mkdir(exist_ok=True)
            target.write_text(source.read_text())
    if recipe.data.unlabelled_root:
        write_dataset(other, labelled=0, val=0)
