"""The store as the protocol's model repository: which models there are, which are loaded, and how that changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from service.errors import Conflict, ModelNotFound
from service.models.active_model import ActiveModel
from service.models.loading import LoadedModel
from service.models.model_store import ModelStore
from service.open_inference.model_names import (
    ENCODED,
    EVERY,
    Entry,
    Name,
    choose,
    names,
    numbered,
    safe_name,
    understand,
)
from service.open_inference.tensor_spec import Face, face_of

UNLOADED = "unloaded: a request for this version loads it, or POST /v2/repository/models/{model}/load"


@dataclass(frozen=True, slots=True)
class Served:
    """A version of a model, loaded: it answers."""

    name: Name
    number: int
    loaded: LoadedModel

    @property
    def face(self) -> Face:
        """What it takes and gives."""
        return face_of(self.name.kind, len(self.loaded.class_table.names))


@dataclass(frozen=True, slots=True)
class Found:
    """A model and one version of it, loaded or not, among all its versions."""

    name: Name
    entry: Entry
    entries: tuple[Entry, ...]


class Repository:
    """Reads the database, and so belongs into a thread, all but `at_hand`."""

    def __init__(self, models: ModelStore, slot: ActiveModel) -> None:
        self._models = models
        self._active_model = slot
        self._numbers: dict[str, int] = {}

    def at_hand(self, model: str, version: str | None) -> Served | None:
        """The active model, where this is what is asked for and no database is needed to know it."""
        loaded = self._active_model.current
        number = self._numbers.get(loaded.version) if loaded else None
        if loaded is None or number is None or version not in (None, str(number), loaded.version):
            return None
        family = safe_name(loaded.bundle.manifest.name)
        if model in EVERY:
            return Served(Name(model, EVERY[model], None), number, loaded)
        if model == family + ENCODED:
            return Served(Name(model, "encoded", family), number, loaded)
        # A name that ends like this may belong to another bundle.
        plain = model == family and not family.endswith(ENCODED)
        return Served(Name(model, "tensor", family), number, loaded) if plain else None

    def lease(self, model: str, version: str | None) -> Served:
        """A version that answers, loaded if need be, which takes seconds.

        Raises:
            ModelNotFound: There is no such model, or no such version of it.
            NoModel: None is ready yet.
            MaskloopError: As `ActiveModel.lease` says.
        """
        found = self.find(model, version)
        return Served(found.name, found.entry.number, self._active_model.lease(found.entry.row.version))

    def find(self, model: str, version: str | None = None) -> Found:
        """A version of a model, without loading it.

        Raises:
            ModelNotFound: There is none.
            NoModel: No version was given and no model is ready yet.
        """
        entries = self._entries()
        name = understand(model, (entry.family for entry in entries))
        covered = tuple(entry for entry in entries if name.covers(entry.family))
        entry = choose(version, covered, name) if version is not None else self._default(name, covered)
        return Found(name, entry, covered)

    def models(self) -> list[str]:
        """The names of all models."""
        return [name.text for name in names(entry.family for entry in self._entries())]

    def resident(self, model: str | None = None) -> list[tuple[str, int]]:
        """Names and version numbers of what is loaded, of one model or all."""
        loaded, entries = self._active_model.loaded_versions, self._entries()
        found = names(entry.family for entry in entries)
        return [
            (name.text, entry.number)
            for name in found
            for entry in entries
            if model in (None, name.text) and name.covers(entry.family) and entry.row.version in loaded
        ]

    def is_ready(self, entry: Entry) -> bool:
        """Whether a version is loaded."""
        return entry.row.version in self._active_model.loaded_versions

    def unload(self, model: str, version: str | None) -> None:
        """Give the memory of a version back, or of all versions of a model.

        Raises:
            ModelNotFound: There is no such model or version.
            Conflict: It is the active one.
        """
        found = self.find(model, version)
        which = found.entries if version is None else (found.entry,)
        active = self._active_model.current.version if self._active_model.current else None
        if any(entry.row.version == active for entry in which):
            raise Conflict(
                f"{model} is active and answers requests: activate another version first "
                "(POST /v1/models/VERSION/activate)."
            )
        for entry in which:
            self._active_model.evict(entry.row.version)

    def index(self, *, ready_only: bool) -> list[dict[str, Any]]:
        """Every version of every model, and whether it is loaded."""
        entries = self._entries()
        listed = [
            {"name": name.text, "version": str(entry.number), "state": state, "reason": reason}
            for name in names(entry.family for entry in entries)
            for entry in entries
            if name.covers(entry.family)
            for state, reason in self._state(name, entry)
        ]
        return [one for one in listed if one["state"] == "READY" or not ready_only]

    def _state(self, name: Name, entry: Entry) -> Iterator[tuple[str, str]]:
        row = entry.row
        if row.version in self._active_model.loaded_versions:
            yield "READY", ""
        elif row.version == self._active_model.loading:
            yield "LOADING", ""
        elif row.state == "ready":
            yield "UNAVAILABLE", UNLOADED.format(model=name.text)
        else:
            yield "UNAVAILABLE", f"{row.state}: {row.error}" if row.error else row.state

    def _entries(self) -> list[Entry]:
        entries = numbered(self._models.list())
        self._numbers = {entry.row.version: entry.number for entry in entries}
        return entries

    def _default(self, name: Name, covered: tuple[Entry, ...]) -> Entry:
        active = self._active_model.require().version
        for entry in covered:
            if entry.row.version == active:
                return entry
        for entry in reversed(covered):
            if entry.row.state == "ready":
                return entry
        raise ModelNotFound(f"No version of {name.text} may serve: POST /v2/repository/index says why.")
