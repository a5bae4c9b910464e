"""classes.toml: which classes there are, and how masks store them.

    ignore_index = 255          what the trainer uses for pixels that do not count, and what masks may hold for them
    masks = "ids"               or "colours": masks are pictures in the classes' colours
    reduce_zero = true          masks store 0 for "nothing of these" and k for class k - 1
    ignore_values = [0, 7]      more stored values that do not count (ignore_colors = [[r, g, b]] for colours)

    [[classes]]
    name = "road"
    color = [128, 64, 128]
    values = [7, 8]             the stored values of this class; without, its position. All classes have them or none
    colors = [[128, 64, 128]]   its colours in masks of colours; without, its color
    id = 0                      its position; may be left out

The public data sets' own files of this form lie in trainer/data/classes.
"""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from trainer.data.labels import Color, Labels
from trainer.taxonomy import IGNORE, Taxonomy, TaxonomyError

PUBLIC = Path(__file__).parent / "classes"

KNOWN = {"classes", "ignore_index", "masks", "reduce_zero", "ignore_values", "ignore_colors"}
KNOWN_OF_CLASS = {"name", "color", "values", "colors", "id"}
COLOURS = {"colours", "colors"}

Key = TypeVar("Key", int, Color)


def read_classes(path: Path) -> tuple[Taxonomy, Labels]:
    """Read a file of classes. Raises TaxonomyError, naming the file."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        _check_keys(table)
        taxonomy = Taxonomy.from_list(table.get("classes", []), table.get("ignore_index", IGNORE))
        return taxonomy, _labels(table, taxonomy)
    except OSError as error:
        raise TaxonomyError(
            f"{path}: cannot be read ({error.strerror}); it lists the classes, a [[classes]] each"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TaxonomyError) as error:
        raise TaxonomyError(f"{path}: {error}") from error


def public_classes(name: str, root: Path) -> tuple[Taxonomy, Labels]:
    """Classes of a public data set, or those of ROOT/classes.toml where its owner wants others (merged ones, say)."""
    own = root / "classes.toml"
    return read_classes(own if own.exists() else PUBLIC / f"{name}.toml")


def _check_keys(table: dict[str, Any]) -> None:
    if unknown := sorted(set(table) - KNOWN):
        raise TaxonomyError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(KNOWN))}")
    if not isinstance(entries := table.get("classes", []), list):
        raise TaxonomyError(f"classes = {entries!r}: write a [[classes]] table with name and color for each class")
    for entry in entries:
        if isinstance(entry, dict) and (unknown := sorted(set(entry) - KNOWN_OF_CLASS)):
            known = ", ".join(sorted(KNOWN_OF_CLASS))
            raise TaxonomyError(f"class {entry.get('name')!r}: unknown key {unknown[0]!r}; known are {known}")


def _labels(table: dict[str, Any], taxonomy: Taxonomy) -> Labels:
    kind = table.get("masks", "ids")
    if kind in COLOURS:
        return _color_labels(table, taxonomy)
    if kind != "ids":
        raise TaxonomyError(f'masks = {kind!r}: must be "ids" or "colours"')
    _refuse(table, "colors", 'says the colours of masks of numbers; add masks = "colours"')
    meaning = _reduced(table, taxonomy) or _listed(table, taxonomy) or {index: index for index in range(len(taxonomy))}
    ignored = _integers(table.get("ignore_values", []), "ignore_values")
    if both := sorted(set(ignored) & set(meaning)):
        raise TaxonomyError(f"ignore_values: {both[0]} is also stored for class {taxonomy.names[meaning[both[0]]]!r}")
    always = () if taxonomy.ignore_index in meaning else (taxonomy.ignore_index,)
    zero = (0,) if table.get("reduce_zero") else ()
    return Labels.of_values(meaning, (*ignored, *always, *zero), taxonomy.ignore_index)


def _reduced(table: dict[str, Any], taxonomy: Taxonomy) -> dict[int, int]:
    reduce_zero = table.get("reduce_zero", False)
    if not isinstance(reduce_zero, bool):
        raise TaxonomyError(f"reduce_zero = {reduce_zero!r}: must be true or false")
    if not reduce_zero:
        return {}
    _refuse(table, "values", "says stored values, and reduce_zero says others; take one of them out")
    return {index + 1: index for index in range(len(taxonomy))}


def _listed(table: dict[str, Any], taxonomy: Taxonomy) -> dict[int, int]:
    """Class by stored value where classes say theirs."""
    entries = table["classes"]
    if not any("values" in entry for entry in entries):
        return {}
    meaning: dict[int, int] = {}
    for index, entry in enumerate(entries):
        if "values" not in entry:
            raise TaxonomyError(
                f"class {taxonomy.names[index]!r} has no values, and others have; say its stored values"
            )
        for value in _integers(entry["values"], f"class {taxonomy.names[index]!r}: values"):
            _claim(meaning, value, index, taxonomy, str(value))
    return meaning


def _color_labels(table: dict[str, Any], taxonomy: Taxonomy) -> Labels:
    _refuse(table, "values", "says stored values, and the masks are colours; say colors")
    if table.get("reduce_zero") or table.get("ignore_values"):
        raise TaxonomyError(
            "reduce_zero and ignore_values are for masks of ids; say ignore_colors for masks of colours"
        )
    meaning: dict[Color, int] = {}
    for index, entry in enumerate(table["classes"]):
        for color in _colors(entry.get("colors", [entry["color"]]), f"class {taxonomy.names[index]!r}: colors"):
            _claim(meaning, color, index, taxonomy, str(list(color)))
    ignored = _colors(table.get("ignore_colors", []), "ignore_colors")
    if both := [color for color in ignored if color in meaning]:
        raise TaxonomyError(f"ignore_colors: {list(both[0])} is also class {taxonomy.names[meaning[both[0]]]!r}")
    return Labels.of_colors(meaning, ignored, taxonomy.ignore_index)


def _claim(meaning: dict[Key, int], key: Key, index: int, taxonomy: Taxonomy, name: str) -> None:
    if meaning.setdefault(key, index) != index:
        first, second = (taxonomy.names[number] for number in (meaning[key], index))
        raise TaxonomyError(f"{name} is stored for two classes, {first!r} and {second!r}; give it to one")


def _refuse(table: dict[str, Any], key: str, why: str) -> None:
    for entry in table["classes"]:
        if key in entry:
            raise TaxonomyError(f"class {entry['name']!r} {why}")


def _integers(values: Any, where: str) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value <= 65535 for value in values):
        raise TaxonomyError(f"{where} = {values!r}: must be a list of numbers, each 0..65535")
    return values


def _colors(values: Any, where: str) -> list[Color]:
    if not isinstance(values, list) or not all(_is_color(value) for value in values):
        raise TaxonomyError(f"{where} = {values!r}: must be a list of [red, green, blue], each 0..255")
    return [(value[0], value[1], value[2]) for value in values]


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value)
