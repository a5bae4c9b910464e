"""Class lists without a database."""

from __future__ import annotations

from collections.abc import Sequence

from service.classes.class_list import ClassHistory, ClassList, Color, ListedClass
from service.models.bundle import Manifest
from service.releases.gate.class_scopes import Judged
from tests.service.tiny_bundle import COLORS, NAMES


def list_of(names: Sequence[str], colors: Sequence[Color] | None = None, ignore_index: int = 255) -> ClassList:
    """A first list, with grey colours by default."""
    given = colors or [(i % 256, i % 256, i // 256) for i in range(len(names))]
    pairs = enumerate(zip(names, given, strict=True), 1)
    return ClassList(1, tuple(ListedClass(i, name, color) for i, (name, color) in pairs), ignore_index)


def model_list(manifest: Manifest) -> ClassList:
    """The list that is taken from a model."""
    return list_of([c.name for c in manifest.classes], [c.color for c in manifest.classes], manifest.ignore_index)


def judged_by(listed: ClassList, *, active_is_starter: bool = False) -> Judged:
    """Models with classes known by their names in a list."""
    history = ClassHistory((listed,), {})

    def ids_of(manifest: Manifest) -> list[int | None]:
        return [history.find_id(i, listed) for i in history.identify([c.name for c in manifest.classes], None)]

    return Judged(classes=listed, ids_of=ids_of, active_is_starter=active_is_starter)


TINY = list_of(NAMES, COLORS)
"""The list that is taken from the tiny bundle."""
