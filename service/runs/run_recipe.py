"""The recipe of one run: a template, what the active model knows about itself, and where the run's data lie."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from service.models.bundle import Bundle
from service.runs.snapshot import Sizes
from service.storage.blob_store import write_durably

# What belongs to the model rather than to the run: taken from the bundle's own recipe where the template is silent.
INHERITED = {
    "model": None,
    "inference": None,
    "unimatch": None,
    "data": ("crop", "scale"),
    "train": ("lr_encoder", "lr_head_factor", "weight_decay", "ema_decay"),
}
# CutMix mixes an image with another one of its batch.
FEWEST_UNLABELLED = 2


class RecipeError(ValueError):
    """No recipe can be made; the message says what to do."""


def write_recipe(target: Path, *, template: Path, base: Bundle, dataset: Path, sizes: Sizes) -> None:
    """Write the recipe that the trainer gets.

    Args:
        target: The file to write.
        template: `settings.recipe_path`.
        base: The bundle that the run goes on from.
        dataset: The run's data set folder.
        sizes: How many images it holds.

    Raises:
        RecipeError: The template cannot be read, or neither it nor the bundle says what network to train.
    """
    recipe = make_recipe(_read(template), base, dataset=dataset, sizes=sizes)
    write_durably(target, tomli_w.dumps(recipe).encode())


def make_recipe(template: Mapping[str, Any], base: Bundle, *, dataset: Path, sizes: Sizes) -> dict[str, Any]:
    """The recipe as plain values; see `write_recipe`."""
    own = base.manifest.provenance.get("recipe") or {}
    recipe = _inherit(template, own)
    if "model" not in recipe:
        raise RecipeError(
            f"Bundle {base.manifest.version} does not say what network it holds (provenance.recipe), and the template "
            "has no [model] table: name a recipe that has one in MASKLOOP_RECIPE."
        )
    recipe["init"] = str(base.checkpoint.absolute()) if base.checkpoint and _same_network(recipe, own) else ""
    recipe["data"] = {**recipe.get("data", {}), "root": str(dataset.absolute())} | {
        "labelled": "labelled",
        "unlabelled": "unlabelled",
        "val": "val",
    }
    return _fit(recipe, sizes)


def _inherit(template: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    recipe = dict(template)
    for table, keys in INHERITED.items():
        given, known = template.get(table), own.get(table, {})
        if keys is None:
            inherited = {} if given else dict(known)
        else:
            inherited = {key: known[key] for key in keys if key in known}
        merged = {**inherited, **(given or {})}
        if merged:
            recipe[table] = merged
    return recipe


def _same_network(recipe: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether the bundle's weights fit; `weights` only says where an untrained encoder begins."""
    known = own.get("model", {})
    return all(known.get(key) == value for key, value in recipe["model"].items() if key != "weights")


def _fit(recipe: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    train = dict(recipe.get("train", {}))
    # 4 is the trainer's own default.
    train["batch_labelled"] = min(train.get("batch_labelled", 4), sizes.labelled)
    if sizes.unlabelled < FEWEST_UNLABELLED:
        # A run by hand before any unlabelled image came in: the labels alone.
        return {**recipe, "method": "supervised", "train": train}
    train["batch_unlabelled"] = min(train.get("batch_unlabelled", 4), sizes.unlabelled)
    return {**recipe, "train": train}


def _read(template: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(template.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{template} cannot be read ({error.strerror}): correct MASKLOOP_RECIPE.") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{template} is not valid TOML ({error}): correct it.") from None
