"""Make the recipe of a run from a template, the recipe of the active model, and the data set of the run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from service.models.bundle import Bundle
from service.runs.worker.snapshot import Sizes
from service.storage.durable_files import write_durably

# Taken from the recipe in the model's bundle if the template does not set them.
INHERITED = {
    "model": None,
    "inference": None,
    "unimatch": None,
    "data": ("crop", "scale"),
    "train": ("lr_encoder", "lr_head_factor", "weight_decay", "ema_decay"),
}
# CutMix needs two images in a batch.
MIN_UNLABELLED = 2


class RecipeError(ValueError):
    """The recipe cannot be made."""


def write_recipe(
    target: Path,
    *,
    template: Path,
    base: Bundle,
    dataset: Path,
    sizes: Sizes,
    from_encoder: bool = False,
    known_as: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the recipe for training from `base`, or from its encoder alone. Raises RecipeError.

    `known_as` has the names in `base` of classes of the data set that have other ones there.
    """
    recipe = make_recipe(
        _read(template), base, dataset=dataset, sizes=sizes, from_encoder=from_encoder, known_as=known_as
    )
    write_durably(target, tomli_w.dumps(recipe).encode())


def repeat_recipe(target: Path, *, source: Path, base: Bundle, dataset: Path, sizes: Sizes) -> None:
    """Write the recipe of an earlier run, for its images in another folder.

    Raises RecipeError, also if the run started from weights that are gone.
    """
    recipe = _read(source)
    recipe["data"]["root"] = str(dataset.absolute())
    if recipe["init"]:
        if base.checkpoint is None or not base.checkpoint.exists():
            raise RecipeError(
                f"The run started from the checkpoint of {base.manifest.version}, which its bundle lacks now: restore "
                "the file, or start a new run."
            )
        recipe["init"] = str(base.checkpoint.absolute())
    write_durably(target, tomli_w.dumps(_fit(recipe, sizes)).encode())


def starts_from_encoder(recipe: Path) -> bool:
    """Whether a recipe's training starts without a checkpoint. Raises RecipeError."""
    return not _read(recipe)["init"]


def make_recipe(
    template: Mapping[str, Any],
    base: Bundle,
    *,
    dataset: Path,
    sizes: Sizes,
    from_encoder: bool = False,
    known_as: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Make the recipe as a dictionary; see `write_recipe`."""
    own = base.manifest.provenance.get("recipe") or {}
    recipe = _inherit(template, own)
    if "model" not in recipe:
        raise RecipeError(
            f"Bundle {base.manifest.version} does not define its network (provenance.recipe), and the template "
            "has no [model] table: set MASKLOOP_RECIPE to a recipe that has one."
        )
    usable = not from_encoder and _same_network(recipe, own)
    recipe["init"] = str(base.checkpoint.absolute()) if base.checkpoint and usable else ""
    init_classes = {name: _one_or_all(names) for name, names in (known_as or {}).items() if list(names) != [name]}
    if recipe["init"] and init_classes:
        recipe["init_classes"] = init_classes
    declared = {"range": list(base.manifest.value_range)} if base.manifest.value_range else {}
    recipe["data"] = {**declared, **recipe.get("data", {}), "root": str(dataset.absolute())} | {
        "labelled": "labelled",
        "unlabelled": "unlabelled",
        "val": "val",
    }
    return _fit(recipe, sizes)


def _one_or_all(names: Sequence[str]) -> str | list[str]:
    """Value of `init_classes`: the class whose weights a class begins with, or several, whose mean it takes."""
    return names[0] if len(names) == 1 else list(names)


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
    """Whether the weights of the bundle fit; `model.weights` only matters for an untrained encoder."""
    known = own.get("model", {})
    return all(known.get(key) == value for key, value in recipe["model"].items() if key != "weights")


def _fit(recipe: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    train = dict(recipe.get("train", {}))
    # 4 is the default of the trainer.
    train["batch_labelled"] = min(train.get("batch_labelled", 4), sizes.labelled)
    if sizes.unlabelled < MIN_UNLABELLED:
        # A manual run without unlabelled images: train on the labels alone.
        return {**recipe, "method": "supervised", "train": train}
    train["batch_unlabelled"] = min(train.get("batch_unlabelled", 4), sizes.unlabelled)
    return {**recipe, "train": train}


def _read(template: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(template.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"The recipe {template} cannot be read ({error.strerror}): see MASKLOOP_RECIPE.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{template} is not valid TOML ({error}): correct it.") from None
