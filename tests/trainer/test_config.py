"""Recipes: what they refuse, and how they say it."""

import tomllib
from pathlib import Path

import pytest
import tomli_w

from tests.trainer.conftest import make_recipe
from trainer.config import RecipeError
from trainer.recipe_file import load_recipe, recipe_from_dict

RECIPES = Path(__file__).parents[2] / "trainer" / "recipes"


def good() -> dict[str, object]:
    return make_recipe(Path("somewhere")).as_dict()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_in_the_repository_is_valid(path: Path) -> None:
    load_recipe(path)


def test_a_recipe_survives_toml() -> None:
    recipe = make_recipe(Path("somewhere"))
    assert recipe_from_dict(tomllib.loads(tomli_w.dumps(recipe.as_dict()))) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"method": "magic"}, "must be one of 'supervised', 'fixmatch'"),
        ({"train": {"steps": 0}}, r"train\.steps = 0: must be greater than 0"),
        ({"train": {"steps": "many"}}, "must be of type int"),
        ({"train": {}}, "missing 1 required keyword-only argument: 'steps'"),
        ({"train": {"steps": 1, "batch_unlabelled": 1}}, "must be 2 or more, since CutMix"),
        ({"data": {"root": "x", "crop": [32]}}, "must be a list of 2"),
        ({"unimatch": {"confidence_threshold": 1.5}}, r"must lie in 0\.\.1"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_from_dict(good() | change)


def test_overrides_take_toml_values_and_bare_words(tmp_path: Path) -> None:
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
