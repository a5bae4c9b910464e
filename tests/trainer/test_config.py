"""Decoding of recipes: TOML, overrides, and messages about mistakes."""

import datetime as dt
import tomllib
from pathlib import Path

import pytest
import tomli_w

from tests.trainer.conftest import make_recipe
from trainer.__main__ import main
from trainer.config import Loss, RecipeError
from trainer.recipe_file import load_recipe, recipe_from_dict

RECIPES = Path(__file__).parents[2] / "trainer" / "recipes"


def good() -> dict[str, object]:
    return make_recipe(Path("somewhere")).as_dict()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_of_the_repository_are_valid(path: Path) -> None:
    load_recipe(path)


def test_recipe_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    recipe = make_recipe(Path("somewhere"))
    (tmp_path / "base.toml").write_text(tomli_w.dumps(recipe.as_dict()), encoding="utf-8-sig")
    (tmp_path / "child.toml").write_text('extends = "base.toml"\n', encoding="utf-8-sig")
    assert load_recipe(tmp_path / "child.toml") == recipe


def test_recipe_round_trips_through_toml() -> None:
    recipe = make_recipe(Path("somewhere"))
    assert recipe_from_dict(tomllib.loads(tomli_w.dumps(recipe.as_dict()))) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown key 'colour'; known keys are method, data, .*, init"),
        ({"train": {"steps": 1, "stpes": 2}}, r"unknown key 'train\.stpes'; did you mean train\.steps\?"),
        ({"train": {"steps": 1, "crop": 2}}, r"unknown key 'train\.crop'; did you mean data\.crop\?"),
        ({"train": {"steps": 1, "zzz": 2}}, r"unknown key 'train\.zzz'; known keys are train\.steps, train\.batch_"),
        ({"method": "magic"}, "method = 'magic': must be 'supervised', 'fixmatch', 'unimatch_v1' or 'unimatch_v2'"),
        ({"train": {"steps": 0}}, r"train\.steps = 0: must be greater than 0"),
        ({"train": {"steps": "many"}}, r"train\.steps = 'many': must be a valid integer"),
        ({"train": {"steps": True}}, r"train\.steps = True: must be a valid integer"),
        ({"train": {"steps": 2.0}}, r"train\.steps = 2\.0: must be a valid integer"),
        ({"train": {}}, r"train\.steps is missing"),
        ({"train": 5}, "train = 5: must be a table"),
        (
            {"train": {"steps": 1, "batch_unlabelled": 1}},
            r"train\.batch_unlabelled = 1: must be 2 or more, since CutMix",
        ),
        ({"train": {"steps": 1, "lr_encoder": float("inf")}}, r"train\.lr_encoder = inf: must be a finite number"),
        ({"data": {"root": "x", "crop": [32]}}, r"data\.crop = \[32\]: must have more items"),
        ({"data": {"root": "x", "crop": [32, 32, 3]}}, r"data\.crop = \[32, 32, 3\]: must have at most 2 items"),
        ({"data": {"root": "x", "crop": 32}}, r"data\.crop = 32: must be a valid list"),
        ({"data": {"root": "x", "scale": [2, 1]}}, r"data\.scale = \[2\.0, 1\.0\]: the first value must not exceed"),
        (
            {"data": {"root": "x", "range": [9, 1]}},
            r"data\.range = \[9\.0, 1\.0\]: the first value, black, must be below",
        ),
        (
            {"data": {"root": "x", "range": [1, 1]}},
            r"data\.range = \[1\.0, 1\.0\]: the first value, black, must be below",
        ),
        ({"data": {"root": "x", "range": [0, float("nan")]}}, r"data\.range\.1 = nan: must be a finite number"),
        ({"data": {"root": "x", "range": [0]}}, r"data\.range = \[0\]: must have more items"),
        (
            {"loss": {"class_weights": {"road": -1}}},
            r"loss\.class_weights\.road = -1: must be greater than or equal to 0",
        ),
        (
            {"unimatch": {"confidence_threshold": 1.5}},
            r"unimatch\.confidence_threshold = 1\.5: must be less than or equal",
        ),
    ],
)
def test_mistake_is_reported_with_its_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=f"^recipe: {message}"):
        recipe_from_dict(good() | change)


def test_every_mistake_has_one_line_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(good() | {"colour": 1, "seed": -1}))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    first, second = sorted(str(caught.value).splitlines())
    assert first == f"{path}: seed = -1: must be greater than or equal to 0"
    assert second.startswith(f"{path}: unknown key 'colour'; known keys are method, ")


def test_overrides_accept_toml_values_and_bare_words(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(good()))
    recipe = load_recipe(path, ["train.steps=7", "data.root=else/where", "data.crop=[8, 9]", "train.lr_encoder=1"])
    assert (recipe.train.steps, recipe.data.root, recipe.data.crop, recipe.train.lr_encoder) == (
        7,
        "else/where",
        (8, 9),
        1.0,
    )
    with pytest.raises(RecipeError, match=r"write a\.b=value"):
        load_recipe(path, ["train.steps"])


def test_ohem_pixels_of_an_earlier_version_become_a_share() -> None:
    """1152 of the 2 * 48 * 48 pixels of a batch are a quarter; without OHEM the setting had no effect."""
    old = good()
    old["loss"] = {"kind": "ohem", "ohem_threshold": 0.6, "ohem_min_kept": 1152}
    old |= {"data": old["data"] | {"crop": [48, 48]}, "train": old["train"] | {"batch_labelled": 2}}  # type: ignore[operator]
    assert recipe_from_dict(old).loss == Loss(kind="ohem", ohem_threshold=0.6, ohem_min_kept_share=0.25)
    old["loss"] = {"kind": "cross_entropy", "ohem_min_kept": 200_000}
    assert recipe_from_dict(old).loss == Loss()


@pytest.mark.parametrize("pixels", ["many", -5, 0, True])
def test_ohem_pixels_that_were_never_valid_are_an_unknown_key(pixels: object) -> None:
    with pytest.raises(RecipeError, match=r"did you mean loss\.ohem_min_kept_share"):
        recipe_from_dict(good() | {"loss": {"kind": "ohem", "ohem_min_kept": pixels}})


def test_ohem_pixels_of_an_earlier_version_do_not_replace_a_share() -> None:
    with pytest.raises(RecipeError, match=r"did you mean loss\.ohem_min_kept_share"):
        recipe_from_dict(good() | {"loss": {"kind": "ohem", "ohem_min_kept": 1152, "ohem_min_kept_share": 0.3}})


def test_share_of_an_earlier_version_is_a_notice_of_the_run(dataset: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset, "supervised", steps=1).as_dict()
    path, events = tmp_path / "recipe.toml", tmp_path / "run/events.jsonl"
    recipe["loss"] = {"kind": "ohem", "ohem_min_kept": 512}
    path.write_text(tomli_w.dumps(recipe))
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 0
    assert "ohem_min_kept = 512 is read as loss.ohem_min_kept_share = 0.25, as on one GPU" in events.read_text()
    for loss in ({"kind": "cross_entropy", "ohem_min_kept": 512}, {"kind": "ohem", "ohem_min_kept_share": 0.25}):
        notices: list[str] = []
        path.write_text(tomli_w.dumps(recipe | {"loss": loss}))
        load_recipe(path, [], notices)
        assert notices == []


def test_dates_are_rejected() -> None:
    """TOML has dates and times; no setting is one, and as text they would be a file or split that does not exist."""
    with pytest.raises(RecipeError, match="2024-01-01 is a date or time; write text in quotes"):
        recipe_from_dict(good() | {"init": dt.date(2024, 1, 1)})
