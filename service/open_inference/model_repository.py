"""The model repository of the protocol: find, load and unload versions."""

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
    GENERIC,
    ModelName,
    StoreEntry,
    list_names,
    number_versions,
    resolve_name,
    safe_name,
    select_version,
)
from service.open_inference.tensor_spec import ModelSignature, signature_of

UNLOADED = "unloaded: a request for this version loads it, or POST /v2/repository/models/{model}/load"


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded version of a model."""

    name: ModelName
    number: int
    loaded: LoadedModel

    @property
    def signature(self) -> ModelSignature:
        """Its input and outputs."""
        manifest = self.loaded.bundle.manifest
        return signature_of(self.name.kind, len(manifest.classes), manifest.embedding_dimensions)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model, its requested version, loaded or not, and all its versions."""

    name: ModelName
    entry: StoreEntry
    entries: tuple[StoreEntry, ...]


class ModelRepository:
    """Finds, loads and unloads versions. Only `loaded` may be called on the event loop."""

    def __init__(self, models: ModelStore, active_model: ActiveModel) -> None:
        self._models = models
        self._active_model = active_model
        self._numbers: dict[str, int] = {}

    def loaded(self, model: str, version: str | None) -> Served | None:
        """Return the active model if the request names it; None if only the database can tell."""
        loaded = self._active_model.current
        number = self._numbers.get(loaded.version) if loaded else None
        if loaded is None or number is None or version not in (None, str(number), loaded.version):
            return None
        bundle_name = safe_name(loaded.bundle.manifest.name)
        if model in GENERIC:
            return Served(ModelName(model, GENERIC[model], None), number, loaded)
        if model == bundle_name + ENCODED:
            return Served(ModelName(model, "encoded", bundle_name), number, loaded)
        # A name with this suffix may be the encoded model of another bundle.
        if model == bundle_name and not bundle_name.endswith(ENCODED):
            return Served(ModelName(model, "tensor", bundle_name), number, loaded)
        return None

    def lease(self, model: str, version: str | None) -> Served:
        """Return a version, loading it if necessary, which takes seconds. Raises as `find` and `ActiveModel.lease`."""
        found = self.find(model, version)
        return Served(found.name, found.entry.number, self._active_model.lease(found.entry.row.version))

    def replaced(self, served: Served, loaded: LoadedModel) -> Served | None:
        """Serve another version under the name of a request; None if that model has another name, or other outputs."""
        if loaded.version not in self._numbers:
            self._entries()
        other = Served(served.name, self._numbers[loaded.version], loaded)
        same_name = served.name.bundle_name in (None, safe_name(loaded.bundle.manifest.name))
        return other if same_name and other.signature == served.signature else None

    def find(self, model: str, version: str | None = None) -> ResolvedModel:
        """Find a version of a model, without loading it; without `version`, the default one.

        Raises ModelNotFound, or NoModel if no version was given and no model is ready.
        """
        entries = self._entries()
        name = resolve_name(model, entries)
        included = tuple(entry for entry in entries if name.includes(entry))
        entry = self._default(name, included) if version is None else select_version(version, included, name)
        return ResolvedModel(name, entry, included)

    def models(self) -> list[str]:
        """List the names of all models."""
        return [name.text for name in list_names(self._entries())]

    def loaded_versions(self, model: str | None = None) -> list[tuple[str, int]]:
        """List names and numbers of the loaded versions, of one model or all."""
        return [(name.text, entry.number) for name, entry in self._pairs(model) if self.is_ready(entry)]

    def is_ready(self, entry: StoreEntry) -> bool:
        """Whether a version is loaded."""
        return entry.row.version in self._active_model.loaded_versions

    def unload(self, model: str, version: str | None) -> None:
        """Unload a version, or all versions of a model. Raises ModelNotFound, or Conflict for the active version."""
        found = self.find(model, version)
        entries = found.entries if version is None else (found.entry,)
        if any(entry.row.version == self._active_model.current_version for entry in entries):
            raise Conflict(
                f"{model} is active and cannot be unloaded: activate another version first "
                "(POST /v1/models/VERSION/activate)."
            )
        for entry in entries:
            self._active_model.evict(entry.row.version)

    def index(self, *, ready_only: bool) -> list[dict[str, Any]]:
        """List every version of every model and its state."""
        listed = [(name.text, entry, *self._state(name, entry)) for name, entry in self._pairs()]
        return [
            {"name": name, "version": str(entry.number), "state": state, "reason": reason}
            for name, entry, state, reason in listed
            if state == "READY" or not ready_only
        ]

    def _pairs(self, model: str | None = None) -> Iterator[tuple[ModelName, StoreEntry]]:
        entries = self._entries()
        for name in list_names(entries):
            if model in (None, name.text):
                yield from ((name, entry) for entry in entries if name.includes(entry))

    def _state(self, name: ModelName, entry: StoreEntry) -> tuple[str, str]:
        row = entry.row
        if self.is_ready(entry):
            return "READY", ""
        if row.version == self._active_model.loading:
            return "LOADING", ""
        if row.state == "ready":
            return "UNAVAILABLE", UNLOADED.format(model=name.text)
        return "UNAVAILABLE", f"{row.state}: {row.error}" if row.error else row.state

    def _entries(self) -> list[StoreEntry]:
        entries = number_versions(self._models.list())
        self._numbers = {entry.row.version: entry.number for entry in entries}
        return entries

    def _default(self, name: ModelName, included: tuple[StoreEntry, ...]) -> StoreEntry:
        active = self._active_model.require().version
        for entry in included:
            if entry.row.version == active:
                return entry
        for entry in reversed(included):
            if entry.row.state == "ready":
                return entry
        raise ModelNotFound(f"No version of {name.text} is ready: POST /v2/repository/index states the reasons.")
