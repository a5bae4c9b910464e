"""Check names and colours of a class list, and draw missing colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from unicodedata import category, normalize

from service.classes.class_list import ClassList, Color, ListedClass
from service.errors import ClassesInvalid

MAX_NAME = 64
MAX_CLASSES = 65_535
"""As in the trainer: 16-bit masks, in which one value is ignored."""
IGNORE, WIDE_IGNORE = 255, 65_535


def clean_names(names: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the names in composed form (NFC). Raises ClassesInvalid for one that is not usable, unless it is known."""
    if not 0 < len(names) <= MAX_CLASSES:
        raise ClassesInvalid(f"The list has {len(names)} classes: send 1 to {MAX_CLASSES}.")
    cleaned = [normalize("NFC", name) for name in names]
    for name in cleaned:
        if name not in known and (not 0 < len(name) <= MAX_NAME or name != name.strip() or _has_controls(name)):
            raise ClassesInvalid(
                f"{name!r} is no usable name: write 1 to {MAX_NAME} characters, without control characters and "
                "without spaces around them."
            )
    if twice := [name for name, count in Counter(cleaned).items() if count > 1]:
        raise ClassesInvalid(f"Several classes have the name {twice[0]!r}: rename all but one.")
    return cleaned


def complete_colors(colors: Sequence[Color | None]) -> list[Color]:
    """Draw a colour for each class without one, different from the others."""
    used = {color for color in colors if color is not None}
    drawn = (color for color in _palette() if color not in used)
    return [next(drawn) if color is None else color for color in colors]


def check_colors(classes: Sequence[ListedClass], present: ClassList | None) -> None:
    """Raise ClassesInvalid if two classes have one colour, unless both have had it: models may come with such."""
    had = {(each.identity, each.color) for each in present.classes} if present else set()
    names_by_color: dict[Color, str] = {}
    changed_last = sorted(classes, key=lambda each: (each.identity, each.color) not in had)
    for each in changed_last:
        other = names_by_color.setdefault(each.color, each.name)
        if other != each.name and (each.identity, each.color) not in had:
            raise ClassesInvalid(
                f"The classes {other!r} and {each.name!r} have one colour, {list(each.color)}: choose another for "
                "one of them, or leave its colour out."
            )


def ignored_value(classes: int, wanted: int) -> int:
    """Choose the mask value of pixels without a label: the wanted one unless it is the id of a class."""
    if wanted >= classes:
        return wanted
    return IGNORE if classes <= IGNORE else WIDE_IGNORE


def _has_controls(name: str) -> bool:
    # Also lone surrogates, which no database stores.
    return any(category(letter) in ("Cc", "Cs") for letter in name)


def _palette() -> Iterator[Color]:
    """Colours of Pascal VOC's palette without black: bits of the number, distributed over red, green and blue."""
    for number in range(1, 1 << 24):
        red, green, blue = (
            sum((number >> (3 * step + first) & 1) << (7 - step) for step in range(8)) for first in range(3)
        )
        yield red, green, blue
