"""Recipe files: TOML to `trainer.config.Recipe`, with inheritance, a preset and overrides.

    extends = "../pascal.toml"      take all other settings from there
    preset = "fast"                 run a third of the steps; "paper" runs them all

The resolved recipe contains neither key.
"""

import dataclasses
import difflib
import json
import math
import re
import tomllib
import typing
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from trainer.config import TAGS, Recipe, RecipeError

PRESETS = {"paper": 1.0, "fast": 1 / 3}
"""Fraction of the steps. Half of the paper's schedule comes within 0.5 mIoU of its best."""


def load_recipe(path: Path, overrides: list[str] | None = None, notices: list[str] | None = None) -> Recipe:
    """Read a recipe file and apply overrides `a.b=value` (a TOML value, or a bare word as a string).

    What the user should know about a setting of an earlier version is appended to `notices`. Raises RecipeError if the
    file is not valid TOML, a key is unknown or missing, or a value is out of range.
    """
    return resolve(read_table(path), str(path), overrides, notices)


def resolve(
    table: dict[str, Any], where: str, overrides: list[str] | None = None, notices: list[str] | None = None
) -> Recipe:
    """The same for the table of a recipe, which `where` names in messages and which is changed."""
    for override in overrides or []:
        set_value(table, override)
    preset = table.pop("preset", "paper")
    if preset not in PRESETS:
        raise RecipeError(f"{where}: preset = {preset!r}: must be one of {', '.join(map(repr, PRESETS))}")
    recipe = recipe_from_dict(table, where)
    pixels = _pop_ohem_pixels(table)[1]
    if notices is not None and pixels and recipe.loss.kind == "ohem":
        share = f"loss.ohem_min_kept_share = {recipe.loss.ohem_min_kept_share:.3g}"
        notices.append(
            f"loss.ohem_min_kept = {pixels} is read as {share}, as on one GPU; if the recipe was made for several, "
            "each of them kept so many pixels: set their number times this share"
        )
    steps = math.ceil(recipe.train.steps * PRESETS[preset])
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=steps))


def recipe_from_dict(table: dict[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from plain values, also those that an earlier version wrote.

    RecipeError has a line per mistake, with `where` and the key's dotted path.
    """
    table, ohem_pixels = _pop_ohem_pixels(table)
    try:
        # As JSON, since pydantic's strict mode accepts neither a list for a tuple nor a dict for a dataclass in Python.
        recipe = TypeAdapter(Recipe).validate_json(json.dumps(table, default=_plain), strict=True)
    except ValidationError as error:
        raise RecipeError("\n".join(f"{where}: {_message(mistake)}" for mistake in error.errors())) from error
    if ohem_pixels is None or recipe.loss.kind != "ohem":
        return recipe
    share = min(1.0, ohem_pixels / (recipe.train.batch_labelled * math.prod(recipe.data.crop)))
    return dataclasses.replace(recipe, loss=dataclasses.replace(recipe.loss, ohem_min_kept_share=share))


def _pop_ohem_pixels(table: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
    """Take loss.ohem_min_kept, in pixels of one process, out of a table; every recipe of earlier versions has it.

    It stays, as an unknown key, if it was never valid or if the table has its successor too.
    """
    loss = table.get("loss")
    pixels = loss.get("ohem_min_kept") if isinstance(loss, dict) else None
    if type(pixels) is not int or pixels <= 0 or "ohem_min_kept_share" in table["loss"]:
        return table, None
    rest = {name: value for name, value in table["loss"].items() if name != "ohem_min_kept"}
    return table | {"loss": rest}, pixels


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise RecipeError(f"{value} is a date or time; write text in quotes")


def _message(mistake: ErrorDetails) -> str:
    kind, value = mistake["type"], mistake["input"]
    location = tuple(part for part in mistake["loc"] if part not in TAGS)
    key = ".".join(map(str, location))
    if kind == "unexpected_keyword_argument":
        return f"unknown key {key!r}; {_known_keys(key)}"
    if kind == "missing" and isinstance(location[-1], int):
        return f"{key.rpartition('.')[0]} = {value!r}: must have more items"
    if kind == "missing":
        return f"{key} is missing; set it"
    if kind == "value_error":
        return ".".join([*map(str, location), str(mistake["ctx"]["error"])])
    reason = re.sub(r"^\w+ should", "must", mistake["msg"]).replace("an object", "a table").replace("array", "list")
    return f"{key or 'a recipe'} = {value!r}: {reason}"


def _known_keys(unknown: str) -> str:
    """The known keys nearest to `unknown`, or else all of its table."""
    sections = typing.get_type_hints(Recipe)
    keys = [
        f"{name}.{inner.name}" if inner else name
        for name, section in sections.items()
        for inner in (None, *(dataclasses.fields(section) if dataclasses.is_dataclass(section) else ()))
    ]
    leaf = unknown.rpartition(".")[2]
    near = [key for key in keys if key.endswith(f".{leaf}")] + difflib.get_close_matches(unknown, keys, cutoff=0.8)
    if near:
        return f"did you mean {' or '.join(dict.fromkeys(near))}?"
    table = unknown.rpartition(".")[0]
    return f"known keys are {', '.join(key for key in keys if key.rpartition('.')[0] == table)}"


def read_table(path: Path, children: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The table of a recipe file and of those that it extends. Raises RecipeError."""
    if path.resolve() in children:
        raise RecipeError(f"{path}: extends itself; remove `extends` from one of the files")
    table = _read(path)
    parent = table.pop("extends", None)
    if parent is None:
        return table
    if not isinstance(parent, str):
        raise RecipeError(f"{path}: extends = {parent!r}: must be the path of a recipe file, relative to this one")
    return _merge(read_table(path.parent / parent, (*children, path.resolve())), table)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        remedy = "give the path of a recipe file, or of a data set's folder"
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not valid TOML: {error}") from error


def _merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    tables = {
        key: _merge(base[key], value)
        for key, value in override.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return base | override | tables


def set_value(table: dict[str, Any], override: str) -> None:
    """Set one value of a table: "a.b=value". Raises RecipeError."""
    name, equals, text = override.partition("=")
    if not equals:
        raise RecipeError(f"--set {override}: write a.b=value, for example train.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, leaf = name.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: {parent} is not a table")
    table[leaf] = value
