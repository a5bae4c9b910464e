"""Names of models and numbers of versions, between the store and the protocol.

| asked for                   | is                                                                                    |
|-----------------------------|---------------------------------------------------------------------------------------|
| `NAME`, `NAME_encoded`      | the versions whose bundle has this name; so `exporter triton` calls the models         |
| `seg`, `seg_bytes`          | every version, whatever its bundle is called                                          |
| version `3`                 | the third version that came into this store, counted from 1 over all names            |
| version `20261122T101112-…` | the same by the bundle's own version, as everywhere else in this service              |
| no version                  | the active one; if it has another name, the newest of this name that may serve        |

Servers of the protocol know only numbers as versions, and so the answers carry numbers; the bundle's own version stands
beside them (`bundle_version`, and in `config` as `version_3`). Numbers stay, since versions are never removed from the
store. They are this store's own; another one may count otherwise. Where a name has two meanings, the encoded model
comes before a bundle that is called so, and `seg` before both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.errors import ModelNotFound
from service.open_inference.tensor_spec import Kind
from service.storage.tables import Model

EVERY: dict[str, Kind] = {"seg": "tensor", "seg_bytes": "encoded"}
ENCODED = "_encoded"
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """A version of the store with its number."""

    number: int
    row: Model

    @property
    def family(self) -> str:
        """Its bundle's name, as it may stand in an address."""
        return safe_name(self.row.name)


@dataclass(frozen=True, slots=True)
class Name:
    """A model's name, understood."""

    text: str
    kind: Kind
    family: str | None
    """The bundle's name; None: any."""

    def covers(self, family: str) -> bool:
        """Whether bundles of this name are versions of the model."""
        return self.family in (None, family)


def safe_name(name: str) -> str:
    """`name` as `exporter triton` writes it; empty where nothing of it is left, and then only `seg` leads there."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:LONGEST_NAME]


def numbered(rows: Sequence[Model]) -> list[Entry]:
    """The versions of a store, the oldest first.

    Args:
        rows: Newest first, as the store lists them.
    """
    return [Entry(number, row) for number, row in enumerate(reversed(rows), start=1)]


def names(families: Iterable[str]) -> list[Name]:
    """The names of all models, where bundles have these names."""
    own = [name for family in set(families) - {""} for name in (Name(family, "tensor", family), _encoded(family))]
    every = [Name(text, kind, None) for text, kind in EVERY.items()]
    # Of two that are the same text, the later one stays.
    found = {name.text: name for name in sorted([*every, *own], key=_rank, reverse=True)}
    return sorted(found.values(), key=lambda name: name.text)


def understand(text: str, families: Iterable[str]) -> Name:
    """A model by name.

    Raises:
        ModelNotFound: There is none.
    """
    for name in names(families):
        if name.text == text:
            return name
    raise ModelNotFound(f"There is no model {text!r:.120}: GET /v2/models lists them.")


def choose(version: str, entries: Sequence[Entry], name: Name) -> Entry:
    """A version of a model, by number or by the bundle's own version.

    Raises:
        ModelNotFound: The model has none such.
    """
    covered = [entry for entry in entries if name.covers(entry.family)]
    for entry in covered:
        if version == str(entry.number):
            return entry
    for entry in covered:
        if version == entry.row.version:
            return entry
    raise ModelNotFound(f"Model {name.text} has no version {version!r:.80}: GET /v2/models/{name.text} lists them.")


def _encoded(family: str) -> Name:
    return Name(family + ENCODED, "encoded", family)


def _rank(name: Name) -> int:
    """In which order of two names that are the same text one is taken: the lower first."""
    if name.family is None:
        return 0
    return 1 if name.kind == "encoded" else 2
