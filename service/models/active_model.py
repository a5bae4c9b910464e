"""The active model of a process, swapped under load.

A thread polls the database for the activated version. It loads, probes and warms a new version while the present one
serves, then swaps them with one assignment; requests keep the model that they began with. If the new version fails, the
present one stays: a broken bundle is marked in its row, for all processes; a fault of the machine is retried.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from service.allocator import trim_heap
from service.errors import BundleInvalid, MaskloopError, NoModel, names_only
from service.metrics import Metrics
from service.models.loading import LoadedModel, load_model
from service.models.model_cache import ModelCache
from service.models.model_store import ModelStore
from service.settings import Settings
from service.storage.storage_faults import reason_of, storage_fault

log = structlog.stdlib.get_logger(__name__)

STOP_TIMEOUT_S = 30.0
RETRY_AFTER_S = 2
MIN_BACKOFF_S, MAX_BACKOFF_S = 1.0, 60.0


class ActiveModel:
    """The active model, and a cache of other versions that clients request."""

    def __init__(
        self,
        settings: Settings,
        models: ModelStore,
        metrics: Metrics,
        prepare: Callable[[LoadedModel], LoadedModel] = lambda model: model,
    ) -> None:
        """`prepare` is applied to each model before it serves."""
        self._settings = settings
        self._prepare = prepare
        self._models = models
        self._metrics = metrics
        self._current: LoadedModel | None = None
        self._assigning = threading.Lock()
        self._previous: str | None = None
        self._cache = ModelCache(settings, models, self._prune_metrics)
        self._deferred: str | None = None
        self._attempts = 0
        self._not_before = 0.0
        self._database_failed = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: str | None = None
        """Why the last load failed; None if it succeeded."""

    def start(self) -> None:
        """Start polling the database, in a background thread."""
        self._thread = threading.Thread(target=self._poll, name="active-model", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, after a load in progress."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def wake(self) -> None:
        """Poll and retry now: a version was just activated."""
        self._not_before = 0.0
        self._wake.set()

    @property
    def current(self) -> LoadedModel | None:
        """The active model; None until the first is ready."""
        return self._current

    @property
    def current_version(self) -> str | None:
        """The version of the active model."""
        return self._current.version if self._current else None

    def require(self) -> LoadedModel:
        """Return the active model. Raises NoModel if none is ready."""
        if self._current is None:
            reason = self.error or "it is loading, or none was activated (POST /v1/models)"
            raise NoModel(f"No model is ready: {reason}.", retry_after_s=RETRY_AFTER_S)
        return self._current

    def lease(self, version: str) -> LoadedModel:
        """Return a version, loading it if necessary, which takes seconds: do not call this on the event loop.

        Raises ModelNotFound, ModelNotServable if it is not ready or does not load, ModelLoading while a version is
        loaded, or Unavailable if the machine cannot load it.
        """
        current = self._current
        return current if current and current.version == version else self._cache.lease(version)

    @property
    def loaded_versions(self) -> frozenset[str]:
        """All loaded versions."""
        current = self.current_version
        return self._cache.loaded_versions | ({current} if current else set())

    @property
    def loading(self) -> str | None:
        """The requested version that is being loaded."""
        return self._cache.loading

    def evict(self, version: str) -> None:
        """Free the memory of an inactive version."""
        self._cache.evict(version)

    def refresh(self) -> None:
        """Poll the database once and swap if needed. On errors the active model stays."""
        try:
            activated = self._models.activated()
            self._database_failed, self.error = False, None if self._database_failed else self.error
            if activated is not None:
                self._switch_to(activated.version)
            self.follow_classes()
        except Exception as error:
            fault = storage_fault(error, self._settings.data_dir)
            if fault is None:
                log.exception("cannot poll the database")
            elif not self._database_failed:
                log.warning(
                    "cannot poll the database; the active model stays", reason=str(fault), cause=reason_of(error)
                )
            self._database_failed = True
            self.error = names_only(str(fault) if fault else f"{type(error).__name__}: {error}")

    def follow_classes(self) -> None:
        """Give the loaded models the present names and colours, if these have changed."""
        current = self._current
        if current is not None:
            (shown,) = self._models.classes.follow([current])
            with self._assigning:
                # Another model may have been loaded meanwhile.
                if self._current is current:
                    self._current = shown
        self._cache.follow_classes()

    def _switch_to(self, version: str) -> None:
        if version != self._deferred:
            self.error = self.error if self._deferred is None else None
            self._deferred, self._attempts, self._not_before = None, 0, 0.0
        if self.current_version != version and time.monotonic() >= self._not_before:
            self._swap(version)

    def _swap(self, version: str) -> None:
        try:
            loaded = self._prepare(load_model(self._models.bundle(version), self._settings))
            loaded = self._models.classes.shown(loaded)
        except BundleInvalid as error:
            self._fail(version, error)
            return
        except Exception as error:
            self._defer(version, error)
            return
        # Error and metrics first: whoever sees the new model must not see the old ones.
        self._deferred, self._attempts, self.error = None, 0, None
        self._metrics.model_swaps.inc()
        self._metrics.set_active_model(version, loaded.artifact.precision, loaded.engine.provider)
        with self._assigning:
            previous, self._current = self._current, loaded
        trim_heap()
        self._cache.evict(version)
        self._previous = previous.version if previous else None
        self._prune_metrics()
        log.info("model serves", version=version, previous=previous and previous.version, on=loaded.engine.provider)

    def _prune_metrics(self) -> None:
        """Remove the metrics of unloaded versions; the previous one's are scraped once more."""
        self._metrics.keep_models(self.loaded_versions | ({self._previous} if self._previous else set()))

    def _fail(self, version: str, error: BundleInvalid) -> None:
        self.error = names_only(f"{version}: {error}")
        self._metrics.model_failures.inc()
        log.error("model failed; the previous one stays", version=version, error=str(error))
        self._models.mark(version, "failed", error=names_only(str(error)))

    def _defer(self, version: str, error: Exception) -> None:
        text = str(error) if isinstance(error, MaskloopError) else f"{type(error).__name__}: {error}"
        self.error = names_only(f"{version}: {text}")
        wait_s = min(MAX_BACKOFF_S, MIN_BACKOFF_S * 2**self._attempts)
        self._deferred, self._attempts, self._not_before = version, self._attempts + 1, time.monotonic() + wait_s
        self._metrics.model_failures.inc()
        log.error("cannot load model; retrying", version=version, error=text, retry_s=wait_s)

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            self.refresh()
            self._wake.wait(self._settings.model_poll_s)
