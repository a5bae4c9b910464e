"""LRU cache of versions that clients request besides the active one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from service.allocator import trim_heap
from service.errors import BundleInvalid, ModelLoading, ModelNotServable
from service.models.activations import check_not_deleted
from service.models.loading import LoadedModel, load_model
from service.models.model_store import ModelStore
from service.settings import Settings
from service.storage.tables import Model

RETRY_AFTER_S = 2

REMEDY = "retry it with POST /v1/models/VERSION/activate, or upload its bundle again"


class ModelCache:
    """Loads one version at a time; requests for another are rejected meanwhile. A load calls `on_change`."""

    def __init__(self, settings: Settings, models: ModelStore, on_change: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._models = models
        self._on_change = on_change
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._loading: str | None = None
        # Never held while a version loads.
        self._lock = threading.Lock()

    def lease(self, version: str) -> LoadedModel:
        """Return a version, loading it if necessary. Raises as `ActiveModel.lease`."""
        self._check(version)
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
        self._on_change()
        return loaded

    def evict(self, version: str) -> None:
        """Evict a version."""
        with self._lock:
            self._loaded.pop(version, None)

    def follow_classes(self) -> None:
        """Give the loaded models the present names and colours, if these have changed."""
        with self._lock:
            loaded = list(self._loaded.values())
        followed = self._models.classes.follow(loaded)
        with self._lock:
            for before, after in zip(loaded, followed, strict=True):
                if self._loaded.get(before.version) is before:
                    self._loaded[before.version] = after

    @property
    def loaded_versions(self) -> frozenset[str]:
        """All loaded versions."""
        with self._lock:
            return frozenset(self._loaded)

    @property
    def loading(self) -> str | None:
        """The version that is being loaded, if any."""
        return self._loading

    def _check(self, version: str) -> None:
        model = self._models.get(version)
        try:
            _check(model)
        except ModelNotServable:
            # It may be in use no more, after another process has deleted it.
            self.evict(version)
            raise

    def _begin(self, version: str) -> None:
        if self._loading is not None:
            raise ModelLoading(
                f"{self._loading} is being loaded: try again in {RETRY_AFTER_S} s.", retry_after_s=RETRY_AFTER_S
            )
        self._loading = version

    def _load(self, version: str) -> LoadedModel:
        try:
            return self._models.classes.shown(load_model(self._models.bundle(version), self._settings))
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
    # People look at the masks of any version before they decide about it, also if it was rejected or withdrawn.
    check_not_deleted(model)
    if model.state == "failed":
        reason = f" ({model.error})" if model.error else ""
        raise ModelNotServable(f"{model.version} is {model.state}{reason}: {REMEDY}.")
