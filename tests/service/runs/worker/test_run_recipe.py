"""Recipe of a run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from service.models.bundle import read_bundle
from service.runs.worker.run_recipe import RecipeError, make_recipe, repeat_recipe, write_recipe
from service.runs.worker.snapshot import Sizes
from service.settings import PACKAGE
from tests.service.runs.conftest import RECIPE
from tests.service.tiny_bundle import sha256, write_bundle

SIZES = Sizes(labelled=6, unlabelled=240, val=60)
TEMPLATE: dict[str, Any] = {
    "method": "unimatch_v2",
    "train": {"steps": 240, "batch_labelled": 4, "batch_unlabelled": 4},
}


@pytest.fixture
def with_weights(tmp_path: Path) -> Path:
    """A bundle that contains its checkpoint."""
    folder = tmp_path / "with-weights"
    folder.mkdir()
    weights = folder / "model.safetensors"
    weights.write_bytes(b"weights")
    provenance = {"parent": None, "recipe": RECIPE}
    checkpoint = {"file": weights.name, "sha256": sha256(weights)}
    built = write_bundle(tmp_path / "built", provenance=provenance, checkpoint=checkpoint)
    for file in built.iterdir():
        file.rename(folder / file.name)
    return folder


def test_model_settings_come_from_the_bundle(with_weights: Path) -> None:
    recipe = make_recipe(TEMPLATE, read_bundle(with_weights), dataset=Path("data"), sizes=SIZES)
    assert recipe["model"] == RECIPE["model"]
    assert recipe["inference"] == {"long_side": 0}
    assert recipe["data"]["crop"] == [32, 32]
    assert Path(recipe["data"]["root"]).is_absolute()
    assert recipe["train"] == {"steps": 240, "batch_labelled": 4, "batch_unlabelled": 4, "lr_encoder": 0.001}
    assert recipe["init"] == str(with_weights / "model.safetensors")


def test_training_settings_of_the_bundle_apply_unless_the_template_sets_them(tmp_path: Path) -> None:
    own = RECIPE | {
        "unimatch": {"confidence_threshold": 0.8, "cutmix_probability": 0.25},
        "train": {"steps": 7, "ema_decay": 0.9, "lr_encoder": 0.001},
    }
    base = read_bundle(write_bundle(tmp_path / "own", provenance={"parent": None, "recipe": own}))
    recipe = make_recipe(TEMPLATE, base, dataset=Path("data"), sizes=SIZES)
    assert recipe["unimatch"] == own["unimatch"]
    assert recipe["train"]["ema_decay"] == 0.9
    assert recipe["train"]["steps"] == 240
    template = TEMPLATE | {"unimatch": {"confidence_threshold": 0.95}, "train": {"steps": 1, "ema_decay": 0.99}}
    recipe = make_recipe(template, base, dataset=Path("data"), sizes=SIZES)
    assert recipe["unimatch"] == {"confidence_threshold": 0.95}
    assert recipe["train"]["ema_decay"] == 0.99


def test_range_of_the_bundle_applies_unless_the_template_sets_another(tmp_path: Path) -> None:
    provenance = {"parent": None, "recipe": RECIPE}
    base = read_bundle(write_bundle(tmp_path / "own", provenance=provenance, value_range=[0, 4095]))
    assert make_recipe(TEMPLATE, base, dataset=Path("data"), sizes=SIZES)["data"]["range"] == [0, 4095]
    template = TEMPLATE | {"data": {"range": [10.0, 99.0]}}
    assert make_recipe(template, base, dataset=Path("data"), sizes=SIZES)["data"]["range"] == [10, 99]


def test_bundle_without_a_range_gives_a_recipe_without_one(with_weights: Path) -> None:
    assert "range" not in make_recipe(TEMPLATE, read_bundle(with_weights), dataset=Path("data"), sizes=SIZES)["data"]


def test_template_may_begin_with_a_byte_order_mark(with_weights: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.toml"
    template.write_text(tomli_w.dumps(TEMPLATE), encoding="utf-8-sig")
    write_recipe(tmp_path / "r", template=template, base=read_bundle(with_weights), dataset=tmp_path, sizes=SIZES)
    assert tomllib.loads((tmp_path / "r").read_text())["method"] == TEMPLATE["method"]


def test_template_overrides_the_bundle(with_weights: Path) -> None:
    template = TEMPLATE | {"data": {"crop": [64, 64]}, "train": {"steps": 1, "lr_encoder": 0.5}}
    recipe = make_recipe(template, read_bundle(with_weights), dataset=Path("data"), sizes=SIZES)
    assert recipe["data"]["crop"] == [64, 64]
    assert recipe["train"]["lr_encoder"] == 0.5
    assert recipe["train"]["steps"] == 1


@pytest.mark.parametrize(
    ("model", "uses_weights"),
    [
        ({"encoder": "tiny", "weights": "package"}, True),
        ({"encoder": "tiny", "features": 8}, True),
        ({"encoder": "another"}, False),
        ({"encoder": "tiny", "features": 64}, False),
    ],
)
def test_weights_are_reused_if_the_network_is_the_same(
    with_weights: Path, model: dict[str, Any], uses_weights: bool
) -> None:
    recipe = make_recipe(TEMPLATE | {"model": model}, read_bundle(with_weights), dataset=Path("data"), sizes=SIZES)
    assert recipe["model"] == model
    assert bool(recipe["init"]) is uses_weights


def test_small_pool_gets_small_batches_or_supervised_training(bad: Path) -> None:
    bundle = read_bundle(bad)
    small = make_recipe(TEMPLATE, bundle, dataset=Path("data"), sizes=Sizes(labelled=2, unlabelled=3, val=1))
    assert (small["train"]["batch_labelled"], small["train"]["batch_unlabelled"]) == (2, 3)
    assert small["init"] == ""
    supervised = make_recipe(TEMPLATE, bundle, dataset=Path("data"), sizes=Sizes(labelled=9, unlabelled=1, val=1))
    assert supervised["method"] == "supervised"
    assert TEMPLATE["method"] == "unimatch_v2"


def test_bundle_without_a_recipe_needs_a_complete_template(good: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="MASKLOOP_RECIPE"):
        make_recipe(TEMPLATE, read_bundle(good), dataset=Path("data"), sizes=SIZES)
    template = tmp_path / "template.toml"
    for content in (b"method = ", b"\xff\xfem\0"):
        template.write_bytes(content)
        with pytest.raises(RecipeError, match="not valid TOML"):
            write_recipe(tmp_path / "r", template=template, base=read_bundle(good), dataset=tmp_path, sizes=SIZES)
    with pytest.raises(RecipeError, match="MASKLOOP_RECIPE"):
        write_recipe(tmp_path / "r", template=tmp_path / "none", base=read_bundle(good), dataset=tmp_path, sizes=SIZES)


def test_packaged_template_gives_a_valid_recipe(with_weights: Path, tmp_path: Path) -> None:
    config = pytest.importorskip("trainer.recipe_file", reason="the trainer checks the recipe")
    target = tmp_path / "recipe.toml"
    template = PACKAGE / "runs" / "recipe.toml"
    write_recipe(target, template=template, base=read_bundle(with_weights), dataset=tmp_path, sizes=SIZES)
    recipe = config.load_recipe(target)
    assert recipe.method == "unimatch_v2"
    assert recipe.model.encoder == "tiny"
    assert tomllib.loads(target.read_text()) == tomllib.loads(tomli_w.dumps(tomllib.loads(target.read_text())))


def test_run_that_started_from_weights_is_not_repeated_without_them(
    with_weights: Path, bad: Path, tmp_path: Path
) -> None:
    source, target = tmp_path / "source.toml", tmp_path / "target.toml"
    template = PACKAGE / "runs" / "recipe.toml"
    write_recipe(source, template=template, base=read_bundle(with_weights), dataset=tmp_path, sizes=SIZES)
    repeat_recipe(target, source=source, base=read_bundle(with_weights), dataset=tmp_path, sizes=SIZES)
    assert tomllib.loads(target.read_text()) == tomllib.loads(source.read_text())
    with pytest.raises(RecipeError, match="lacks now"):
        repeat_recipe(target, source=source, base=read_bundle(bad), dataset=tmp_path, sizes=SIZES)
