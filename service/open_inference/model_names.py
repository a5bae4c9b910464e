"""Map the model names and version numbers of the protocol to versions in the store.

    NAME, NAME_encoded          versions whose bundle has this name; `exporter triton` uses the same model names
    seg, seg_bytes              all versions, whatever the name of their bundle
    version 3                   the third version that was added to this store, counted over all names
    version 20261122T101112-…   the same by the version of the bundle, as in the rest of the API
    no version                  the active one; if its bundle has another name, the newest ready one of this name; an
                                inference may get the candidate of a canary release instead

Responses carry numbers, as in other servers of the protocol; the bundle's version is in `bundle_version` (responses)
and `version_3` (`config`). Numbers are stable within a store; deleted versions keep theirs. If a name has two meanings,
`seg` and `seg_bytes` take precedence over encoded models, and these over tensor models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.errors import ModelNotFound
from service.open_inference.tensor_spec import Kind
from service.storage.tables import Model

GENERIC: dict[str, Kind] = {"seg": "tensor", "seg_bytes": "encoded"}
ENCODED = "_encoded"
MAX_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """A version in the store and its number."""

    number: int
    row: Model

    @property
    def bundle_name(self) -> str:
        """The bundle's name, as used in URLs."""
        return safe_name(self.row.name)


@dataclass(frozen=True, slots=True)
class ModelName:
    """A parsed model name."""

    text: str
    kind: Kind
    bundle_name: str | None
    """Name of the bundles; None: any."""

    def includes(self, entry: StoreEntry) -> bool:
        """Whether this is a version of the model."""
        return self.bundle_name in (None, entry.bundle_name)


def safe_name(name: str) -> str:
    """Return `name` as `exporter triton` writes it; if empty, the version is only reachable as `seg`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:MAX_NAME_LENGTH]


def number_versions(rows: Sequence[Model]) -> list[StoreEntry]:
    """Number the versions, oldest first; `rows` are newest first."""
    return [StoreEntry(number, row) for number, row in enumerate(reversed(rows), start=1)]


def list_names(entries: Iterable[StoreEntry]) -> list[ModelName]:
    """List the names of all models."""
    bundle_names = {entry.bundle_name for entry in entries} - {""}
    by_precedence = [
        *(ModelName(text, kind, None) for text, kind in GENERIC.items()),
        *(ModelName(bundle_name + ENCODED, "encoded", bundle_name) for bundle_name in bundle_names),
        *(ModelName(bundle_name, "tensor", bundle_name) for bundle_name in bundle_names),
    ]
    unique = {name.text: name for name in reversed(by_precedence)}
    return sorted(unique.values(), key=lambda name: name.text)


def resolve_name(text: str, entries: Iterable[StoreEntry]) -> ModelName:
    """Find a model by name. Raises ModelNotFound."""
    for name in list_names(entries):
        if name.text == text:
            return name
    raise ModelNotFound(f"There is no model {text!r:.120}: GET /v2/models lists them.")


def select_version(version: str, entries: Sequence[StoreEntry], name: ModelName) -> StoreEntry:
    """Find a version by number or, failing that, by its bundle's version. Raises ModelNotFound."""
    included = [entry for entry in entries if name.includes(entry)]
    for entry in included:
        if version == str(entry.number):
            return entry
    for entry in included:
        if version == entry.row.version:
            return entry
    raise ModelNotFound(f"Model {name.text} has no version {version!r:.80}: GET /v2/models/{name.text} lists them.")
