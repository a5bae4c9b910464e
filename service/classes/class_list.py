"""A version of the service's class list, and what became of its classes in later versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from service.errors import ClassesNotFound

Color = tuple[int, int, int]
Ids = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

MASK_VALUES = 65_536


@dataclass(frozen=True, slots=True)
class ListedClass:
    """A class of a list. Its identity stays the same in all versions, whatever its name, colour or position."""

    identity: int
    name: str
    color: Color
    """RGB, 0..255."""


@dataclass(frozen=True)
class ClassList:
    """A version of the list; the position of a class is its id in masks."""

    version: int
    classes: tuple[ListedClass, ...]
    ignore_index: int
    """Id of pixels without a label."""

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        """Names by id."""
        return [each.name for each in self.classes]

    @cached_property
    def ids(self) -> Mapping[int, int]:
        """Ids by identity."""
        return {each.identity: position for position, each in enumerate(self.classes)}

    @cached_property
    def identities(self) -> Mapping[str, int]:
        """Identities by name, in composed form (NFC)."""
        return {normalize("NFC", each.name): each.identity for each in self.classes}


@dataclass(frozen=True)
class ClassHistory:
    """All versions, oldest first, and which classes became part of others (by identity)."""

    lists: tuple[ClassList, ...]
    merged: Mapping[int, int]

    @property
    def present(self) -> ClassList:
        """The newest version."""
        return self.lists[-1]

    def version(self, number: int) -> ClassList:
        """Get a version that exists."""
        return self._by_version[number]

    def existing(self, number: int) -> ClassList:
        """Get a version that a client names. Raises ClassesNotFound."""
        if number not in self._by_version:
            raise ClassesNotFound(
                f"There is no version {number} of the class list: the present one is {self.present.version}."
            )
        return self._by_version[number]

    def find_id(self, identity: int | None, target: ClassList) -> int | None:
        """Find the id of a class in a list, or that of the class of which it became a part; None: it has none."""
        while identity is not None and identity not in target.ids:
            identity = self.merged.get(identity)
        return None if identity is None else target.ids[identity]

    def identify(self, names: Sequence[str], number: int | None) -> list[int | None]:
        """Find the identities of a model's classes by their names in a version (None: the present one).

        A class that this version lacks is the first one that was added later with its name, and none that was renamed
        to it; None: there is none.
        """
        first = self.present.version if number is None else number
        found = dict(self.version(first).identities)
        known = {each.identity for listed in self.lists if listed.version <= first for each in listed.classes}
        for listed in self.lists:
            for name, identity in listed.identities.items():
                if listed.version > first and identity not in known:
                    found.setdefault(name, identity)
                    known.add(identity)
        return [found.get(normalize("NFC", name)) for name in names]

    def translate(self, ids_HW: Ids, number: int, target: ClassList) -> Ids:
        """Translate a mask of a version, uint8 or uint16 [H, W], to the ids of a list.

        A class without a counterpart becomes `ignore_index`. Returns uint8 unless an id exceeds 255.
        """
        translated: npt.NDArray[np.uint16] = self._table(self.version(number), target)[ids_HW]
        return translated if int(translated.max(initial=0)) > 255 else translated.astype(np.uint8)

    def keeps_ids(self, number: int, target: ClassList) -> bool:
        """Whether masks of a version have the same ids in a list, so that they need no translation."""
        source = self.version(number)
        if number == 1 and len(source) != len(target):
            # Labels of former versions of the service may have ids beyond the first list, which must not gain a class.
            return False
        same = all(self.find_id(each.identity, target) == position for position, each in enumerate(source.classes))
        return same and source.ignore_index == target.ignore_index

    def _table(self, source: ClassList, target: ClassList) -> npt.NDArray[np.uint16]:
        table = np.full(MASK_VALUES, target.ignore_index, np.uint16)
        for position, each in enumerate(source.classes):
            found = self.find_id(each.identity, target)
            if found is not None:
                table[position] = found
        return table

    @cached_property
    def _by_version(self) -> Mapping[int, ClassList]:
        return {each.version: each for each in self.lists}
