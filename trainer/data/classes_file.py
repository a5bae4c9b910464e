"""Read classes.toml: the classes of a data set, and how its masks store them.

    ignore_index = 255          id of ignored pixels in the trainer; masks may store it
    masks = "ids"               or "colours": masks are images in the colours of the classes
    reduce_zero = true          masks store 0 for ignored pixels and k for class k - 1
    ignore_values = [0, 7]      other stored values to ignore (ignore_colors = [[r, g, b]] for masks of colours)

    [[classes]]
    name = "road"
    color = [128, 64, 128]
    values = [7, 8]             stored values of this class; default: its position. All classes have values or none
    colors = [[128, 64, 128]]   its colours in masks of colours; default: its color
    id = 0                      its position; optional

trainer/data/classes has such files for the public data sets.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from trainer.data.mask_encoding import Color, MaskEncoding
from trainer.taxonomy import IGNORE, Taxonomy, TaxonomyError, is_color

PUBLIC = Path(__file__).parent / "classes"

KEYS = {"classes", "ignore_index", "masks", "reduce_zero", "ignore_values", "ignore_colors"}
CLASS_KEYS = {"name", "color", "values", "colors", "id"}
COLOURS = {"colours", "colors"}

Key = TypeVar("Key", int, Color)


def read_classes(path: Path) -> tuple[Taxonomy, MaskEncoding]:
    """Read a classes file. Raises TaxonomyError, which names the file."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        _check_keys(table)
        taxonomy = Taxonomy.from_list(table.get("classes", []), table.get("ignore_index", IGNORE))
        return taxonomy, _encoding(table, taxonomy)
    except OSError as error:
        remedy = "write a file with one [[classes]] table per class"
        raise TaxonomyError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TaxonomyError) as error:
        raise TaxonomyError(f"{path}: {error}") from error


def write_classes(path: Path, names: Sequence[str], colors: Sequence[Color], ignore_index: int, source: str) -> None:
    """Write a classes file for masks that store ids; `source` says in its first line what wrote it."""
    path.write_text(classes_text(names, colors, ignore_index, source), encoding="utf-8")


def classes_text(names: Sequence[str], colors: Sequence[Color], ignore_index: int, source: str) -> str:
    """The content of such a file."""
    pairs = zip(names, colors, strict=True)
    table = {"ignore_index": ignore_index, "classes": [{"name": name, "color": list(color)} for name, color in pairs]}
    return f"# Written by {source}.\n{tomli_w.dumps(table)}"


def public_classes(name: str, root: Path) -> tuple[Taxonomy, MaskEncoding]:
    """Classes of ROOT/classes.toml if it exists (for example to merge classes), else of a public data set."""
    own = root / "classes.toml"
    return read_classes(own if own.exists() else PUBLIC / f"{name}.toml")


def _check_keys(table: dict[str, Any]) -> None:
    if unknown := sorted(set(table) - KEYS):
        raise TaxonomyError(f"unknown key {unknown[0]!r}; known keys: {', '.join(sorted(KEYS))}")
    if not isinstance(entries := table.get("classes", []), list):
        raise TaxonomyError(f"classes = {entries!r}: write a [[classes]] table with name and color for each class")
    for entry in entries:
        if isinstance(entry, dict) and (unknown := sorted(set(entry) - CLASS_KEYS)):
            known = ", ".join(sorted(CLASS_KEYS))
            raise TaxonomyError(f"class {entry.get('name')!r}: unknown key {unknown[0]!r}; known keys: {known}")


def _encoding(table: dict[str, Any], taxonomy: Taxonomy) -> MaskEncoding:
    kind = table.get("masks", "ids")
    if kind in COLOURS:
        return _color_encoding(table, taxonomy)
    if kind != "ids":
        raise TaxonomyError(f'masks = {kind!r}: must be "ids" or "colours"')
    _reject_key(table, "colors", 'sets `colors`, but masks store ids; add masks = "colours"')
    id_of_value = _reduced(table, taxonomy) or _listed(table, taxonomy) or {i: i for i in range(len(taxonomy))}
    ignored = _integers(table.get("ignore_values", []), "ignore_values")
    if both := sorted(set(ignored) & set(id_of_value)):
        name = taxonomy.names[id_of_value[both[0]]]
        raise TaxonomyError(f"ignore_values: {both[0]} is also a stored value of class {name!r}; remove one of them")
    always = () if taxonomy.ignore_index in id_of_value else (taxonomy.ignore_index,)
    zero = (0,) if table.get("reduce_zero") else ()
    encoding = MaskEncoding.from_values(id_of_value, (*ignored, *always, *zero), taxonomy.ignore_index)
    return replace(encoding, reduces_zero=bool(zero))


def _reduced(table: dict[str, Any], taxonomy: Taxonomy) -> dict[int, int]:
    """Class id by stored value if reduce_zero is set."""
    reduce_zero = table.get("reduce_zero", False)
    if not isinstance(reduce_zero, bool):
        raise TaxonomyError(f"reduce_zero = {reduce_zero!r}: must be true or false")
    if not reduce_zero:
        return {}
    _reject_key(table, "values", "sets `values`, which contradicts reduce_zero; remove one of them")
    return {index + 1: index for index in range(len(taxonomy))}


def _listed(table: dict[str, Any], taxonomy: Taxonomy) -> dict[int, int]:
    """Class id by stored value if the classes list their values."""
    entries = table["classes"]
    if not any("values" in entry for entry in entries):
        return {}
    id_of_value: dict[int, int] = {}
    for index, entry in enumerate(entries):
        if "values" not in entry:
            raise TaxonomyError(f"class {taxonomy.names[index]!r} has no values, but other classes do; add its values")
        for value in _integers(entry["values"], f"class {taxonomy.names[index]!r}: values"):
            _assign(id_of_value, value, index, taxonomy, str(value))
    return id_of_value


def _color_encoding(table: dict[str, Any], taxonomy: Taxonomy) -> MaskEncoding:
    _reject_key(table, "values", "sets `values`, but masks store colours; set `colors`")
    if table.get("reduce_zero") or table.get("ignore_values"):
        raise TaxonomyError("reduce_zero and ignore_values are for masks of ids; masks of colours use ignore_colors")
    id_of_color: dict[Color, int] = {}
    for index, entry in enumerate(table["classes"]):
        for color in _colors(entry.get("colors", [entry["color"]]), f"class {taxonomy.names[index]!r}: colors"):
            _assign(id_of_color, color, index, taxonomy, str(list(color)))
    ignored = _colors(table.get("ignore_colors", []), "ignore_colors")
    if both := [color for color in ignored if color in id_of_color]:
        name = taxonomy.names[id_of_color[both[0]]]
        raise TaxonomyError(f"ignore_colors: {list(both[0])} is also class {name!r}; remove one of them")
    return MaskEncoding.from_colors(id_of_color, ignored, taxonomy.ignore_index)


def _assign(ids: dict[Key, int], key: Key, index: int, taxonomy: Taxonomy, name: str) -> None:
    if ids.setdefault(key, index) != index:
        first, second = taxonomy.names[ids[key]], taxonomy.names[index]
        raise TaxonomyError(f"{name} belongs to two classes, {first!r} and {second!r}; remove it from one")


def _reject_key(table: dict[str, Any], key: str, reason: str) -> None:
    for entry in table["classes"]:
        if key in entry:
            raise TaxonomyError(f"class {entry['name']!r} {reason}")


def _integers(values: Any, where: str) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value <= 65535 for value in values):
        raise TaxonomyError(f"{where} = {values!r}: must be a list of numbers, each 0..65535")
    return values


def _colors(values: Any, where: str) -> list[Color]:
    if not isinstance(values, list) or not all(map(is_color, values)):
        raise TaxonomyError(f"{where} = {values!r}: must be a list of [red, green, blue], each 0..255")
    return [(value[0], value[1], value[2]) for value in values]
