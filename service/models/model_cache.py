"""Versions that clients ask for by name, beside the one that serves: loaded when asked for, the last few kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from service.allocator import trim_heap
from service.errors import BundleInvalid, ModelLoading, ModelNotServable
from service.models.load_pace import LoadPace
from service.models.loading import LoadedModel, load_model
from service.models.model_store import ModelStore
from service.settings import Settings
from service.storage.tables import Model

RETRY_AFTER_S = 2

# What to do about a version that may not answer.
REMEDIES = {
    "candidate": "the run that made it has not judged it yet; wait for that",
    "rejected": "the gate did not let it pass; ask for another",
    "failed": "POST /v1/models/VERSION/activate tries it again, and uploading its bundle again mends it",
}


class ModelCache:
    """The loaded ones. One is loaded at a time, and nobody waits for it: who asks meanwhile is told to come back.

    So is who asks for yet another where many were loaded of late.
    """

    def __init__(self, settings: Settings, models: ModelStore, changed: Callable[[], None] = lambda: None) -> None:
        # `changed` is called when another one is loaded.
        self._settings = settings
        self._models = models
        self._changed = changed
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._loading: str | None = None
        self._pace = LoadPace(settings.extra_models)
        # Held for moments, never while something loads.
        self._lock = threading.Lock()

    def lease(self, version: str) -> LoadedModel:
        """A version by name, loaded if need be (seconds: not on the event loop).

        Raises:
            ModelNotFound: There is no such version.
            ModelNotServable: It is not ready, or does not load.
            ModelLoading: This one or another is being loaded, or too many were of late.
            Unavailable: The machine cannot load it.
        """
        _check(self._models.get(version))
        with self._lock:
            if version in self._loaded:
                self._loaded.move_to_end(version)
                return self._loaded[version]
            self._begin(version)
        loaded = None
        try:
            loaded = self._load(version)
        finally:
            self._end(loaded)
        self._changed()
        return loaded

    @property
    def versions(self) -> list[str]:
        """Those that are loaded."""
        with self._lock:
            return list(self._loaded)

    def forget(self, version: str) -> None:
        """Give one back: it serves now, or its memory is needed."""
        with self._lock:
            self._loaded.pop(version, None)

    @property
    def resident(self) -> frozenset[str]:
        """The versions that are loaded."""
        with self._lock:
            return frozenset(self._loaded)

    @property
    def loading(self) -> str | None:
        """The version that is being loaded."""
        return self._loading

    def _begin(self, version: str) -> None:
        if self._loading is not None:
            raise ModelLoading(
                f"{self._loading} is being loaded: ask again in {RETRY_AFTER_S} s.", retry_after_s=RETRY_AFTER_S
            )
        if wait_s := self._pace.take():
            raise ModelLoading(
                f"Many versions were loaded of late, and {self._settings.extra_models} beside the active one stay so "
                f"(MASKLOOP_EXTRA_MODELS): ask for {version} again in {wait_s} s.",
                retry_after_s=wait_s,
            )
        self._loading = version

    def _load(self, version: str) -> LoadedModel:
        try:
            return load_model(self._models.bundle(version), self._settings)
        except BundleInvalid as error:
            raise ModelNotServable(f"Model {version} does not load: {error}") from None

    def _end(self, loaded: LoadedModel | None) -> None:
        with self._lock:
            self._loading = None
            if loaded is not None:
                self._loaded[loaded.version] = loaded
            full = len(self._loaded) > self._settings.extra_models
            while len(self._loaded) > self._settings.extra_models:
                self._loaded.popitem(last=False)
        if full:
            trim_heap()


def _check(model: Model) -> None:
    if model.state != "ready":
        because = f" ({model.error})" if model.error else ""
        raise ModelNotServable(f"{model.version} is {model.state}{because}: {REMEDIES[model.state]}.")
