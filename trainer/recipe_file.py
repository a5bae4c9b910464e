"""A recipe file: TOML to `trainer.config.Recipe`, with inheritance, a preset and overrides.

    extends = "../pascal.toml"      the rest comes from there, unless this file says it
    preset = "fast"                 a third of the steps; "paper" is the recipe as it stands

Both keys are consumed here: the resolved recipe names the steps that are run.
"""

import dataclasses
import math
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal, cast

from trainer.config import Recipe, RecipeError

PRESETS = {"paper": 1.0, "fast": 1 / 3}
"""Part of the steps that each runs. Half the paper's schedule is within 0.5 mIoU of its best."""


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file, with `a.b=value` overrides (the value in TOML's syntax; a bare word is a string).

    Raises:
        RecipeError: the file is no TOML, a key is unknown or missing, or a value is out of its range.
    """
    table = _inherited(path, ())
    for override in overrides or []:
        _override(table, override)
    preset = table.pop("preset", "paper")
    if preset not in PRESETS:
        raise RecipeError(f"{path}: preset = {preset!r}: must be one of {', '.join(map(repr, PRESETS))}")
    recipe = recipe_from_dict(table, where=str(path))
    steps = math.ceil(recipe.train.steps * PRESETS[preset])
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=steps))


def recipe_from_dict(table: dict[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from plain values. Raises RecipeError, naming the field, for anything that is not a recipe."""
    return cast("Recipe", _build(Recipe, table, where))


def _inherited(path: Path, heirs: tuple[Path, ...]) -> dict[str, Any]:
    """The file's table, laid over those that it extends."""
    if path.resolve() in heirs:
        raise RecipeError(f"{path}: extends itself; take the extends out of one of the files")
    table = _read(path)
    parent = table.pop("extends", None)
    if parent is None:
        return table
    if not isinstance(parent, str):
        raise RecipeError(f"{path}: extends = {parent!r}: must be the path of a recipe file, relative to this one")
    return _laid_over(_inherited(path.parent / parent, (*heirs, path.resolve())), table)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); give the path of a recipe file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not valid TOML: {error}") from error


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _laid_over(below[key], above[key])
        for key in below.keys() & above.keys()
        if isinstance(below[key], dict) and isinstance(above[key], dict)
    }
    return below | above | both


def _override(table: dict[str, Any], override: str) -> None:
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
            raise RecipeError(f"--set {override}: {parent} is no table")
    table[leaf] = value


def _build(kind: type, table: Any, where: str) -> object:
    if not isinstance(table, dict):
        raise RecipeError(f"{where}: must be a table, not {table!r}")
    types_by_name = typing.get_type_hints(kind)
    if unknown := sorted(set(table) - set(types_by_name)):
        raise RecipeError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(types_by_name)}")
    values = {name: _convert(types_by_name[name], value, f"{where}: {name}") for name, value in table.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise RecipeError(f"{where}: {str(error).partition('() ')[2]}") from error
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from error


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(cast("type", kind), value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{where} = {value!r}: must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(arguments):
            raise RecipeError(f"{where} = {value!r}: must be a list of {len(arguments)}")
        return tuple(_convert(inner, item, where) for inner, item in zip(arguments, value, strict=True))
    if kind is float and type(value) is int:
        return float(value)
    if kind is float and type(value) is float and not math.isfinite(value):
        raise RecipeError(f"{where} = {value}: must be a finite number")
    wanted = dict if origin is dict else kind
    if type(value) is not wanted:
        raise RecipeError(f"{where} = {value!r}: must be of type {wanted.__name__}")
    if origin is dict and arguments[1] is not Any:
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return value
