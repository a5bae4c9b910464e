"""Where the classes of the compared models are in the list for which the candidate was trained."""

# K classes of the list

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from service.classes.class_list import MASK_VALUES, ClassList
from service.models.bundle import Manifest

IdsOf = Callable[[Manifest], Sequence[int | None]]
"""Returns the ids in the list of the classes of a model, by their ids in its masks; None: it has no such class."""

Scope = npt.NDArray[np.bool_]
"""Classes of the list that count, bool [K]."""


@dataclass(frozen=True)
class ModelIds:
    """Ids in the list of the classes of a model, by their ids in its masks; None: the list has no such class."""

    ids: tuple[int | None, ...]

    @cached_property
    def table(self) -> npt.NDArray[np.int64]:
        """Ids in the list by the values of the model's masks; `MASK_VALUES`, which is no class, for all others."""
        table = np.full(MASK_VALUES, MASK_VALUES, np.int64)
        for own, listed in enumerate(self.ids):
            if listed is not None:
                table[own] = listed
        return table

    @property
    def are_equal(self) -> bool:
        """Whether the model's masks have the ids of the list."""
        return self.ids == tuple(range(len(self.ids)))

    def scope(self, classes: ClassList) -> Scope:
        """The classes of the list that the model has."""
        found = np.zeros(len(classes), bool)
        found[[each for each in self.ids if each is not None]] = True
        return found

    def translate(self, mask_HW: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Translate a mask of the model to ids of the list; an id that is no class of it stays none."""
        return mask_HW if self.are_equal else self.table[mask_HW]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The classes of a judgement."""

    classes: ClassList
    """The list for which the candidate was trained, and of the labels."""
    ids_of: IdsOf
    active_is_starter: bool = False
    """Whether the active model is the starter model, which knows nothing of the labels."""


def limited(truth_HW: npt.NDArray[Any], scope_K: Scope, ignore: int) -> npt.NDArray[Any]:
    """Ignore the pixels whose label is a class that does not count."""
    if scope_K.all():
        return truth_HW
    kept = np.zeros(MASK_VALUES, bool)
    kept[np.flatnonzero(scope_K)] = True
    return np.where(kept[truth_HW], truth_HW, ignore)
