"""The classes of a data set: names and colours."""

from dataclasses import dataclass
from typing import Any, TypeGuard
from unicodedata import normalize

from trainer.user_error import UserError

IGNORE = 255
"""Default mask value of unlabelled pixels, which count neither in the loss nor in the metrics."""

WIDE_IGNORE = 65535
"""Default for more classes than an 8-bit mask can hold."""


class TaxonomyError(UserError):
    """An invalid list of classes."""


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """Class names, colours (red, green, blue; 0..255), and the mask value of unlabelled pixels; ids are positions."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_index: int = IGNORE

    def __len__(self) -> int:
        return len(self.names)

    def as_list(self) -> list[dict[str, Any]]:
        """`[{"id": 0, "name": "sky", "color": [r, g, b]}, ...]`, the form in checkpoint and bundle."""
        pairs = enumerate(zip(self.names, self.colors, strict=True))
        return [{"id": index, "name": name, "color": list(color)} for index, (name, color) in pairs]

    @classmethod
    def from_list(cls, classes: list[dict[str, Any]], ignore_index: int = IGNORE) -> "Taxonomy":
        """The inverse of `as_list`. Names are stored in composed form (NFC), so that all Unicode forms are equal.

        Raises TaxonomyError if an entry has no name or colour, an id is not its position, two names are equal, or
        ignore_index is out of range or a class id.
        """
        if not isinstance(classes, list) or not classes:
            raise TaxonomyError("there are no classes; add at least one [[classes]] table with name and color")
        names, colors = [], []
        for index, entry in enumerate(classes):
            where = f"class {index}"
            if not isinstance(entry, dict):
                raise TaxonomyError(f"{where} is {entry!r}; write a [[classes]] table with name and color")
            name, color, given = entry.get("name"), entry.get("color"), entry.get("id", index)
            if not isinstance(name, str) or not name:
                raise TaxonomyError(f"{where} has no name; set name")
            if not is_color(color):
                raise TaxonomyError(f"{where} ({name}): color must be [red, green, blue], each 0..255, not {color!r}")
            if type(given) is not int or given != index:
                raise TaxonomyError(
                    f"{where} ({name}): id = {given!r}, but a class's id is its position in the list; move the class, "
                    "or remove id and set values to the mask values"
                )
            names.append(normalize("NFC", name))
            colors.append((color[0], color[1], color[2]))
        if len(set(names)) != len(names):
            raise TaxonomyError("two classes have the same name; rename one")
        _check_ignored(ignore_index, names)
        return cls(tuple(names), tuple(colors), ignore_index)


def is_color(value: Any) -> TypeGuard[list[int]]:
    """Whether a value is [red, green, blue], each 0..255."""
    return isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value)


def distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """First colours of Pascal VOC's palette: bits of the id, distributed over red, green and blue."""

    def channel(index: int, first_bit: int) -> int:
        return sum((index >> (3 * step + first_bit) & 1) << (7 - step) for step in range(8))

    return [(channel(index, 0), channel(index, 1), channel(index, 2)) for index in range(count)]


def _check_ignored(ignore_index: Any, names: list[str]) -> None:
    remedy = f"use {IGNORE if len(names) <= IGNORE else WIDE_IGNORE}"
    if type(ignore_index) is not int or not 0 <= ignore_index <= WIDE_IGNORE:
        raise TaxonomyError(f"ignore_index = {ignore_index!r}: is not a mask value; {remedy}")
    if ignore_index < len(names):
        raise TaxonomyError(f"ignore_index = {ignore_index} is also the id of class {names[ignore_index]!r}; {remedy}")
