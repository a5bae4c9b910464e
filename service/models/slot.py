"""The model that answers, swapped under load.

A thread looks at the database for the version that should serve. It loads, probes and warms a new one while the present
one goes on answering, and then swaps them with one assignment. Requests that began with the old one keep it until they
are done. Where the new one fails, the old one stays and the row says why.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import structlog

from service.errors import MaskloopError, ModelNotServable, NoModel
from service.metrics import Metrics
from service.models.loading import LoadedModel, load_model
from service.models.store import ModelStore
from service.settings import Settings

log = structlog.stdlib.get_logger(__name__)

STOP_TIMEOUT_S = 30.0
RETRY_AFTER_S = 2


class Slot:
    """The active model of this process, and a few others that clients ask for by version."""

    def __init__(self, settings: Settings, models: ModelStore, metrics: Metrics) -> None:
        self._settings = settings
        self._models = models
        self._metrics = metrics
        self._current: LoadedModel | None = None
        self._others: OrderedDict[str, LoadedModel] = OrderedDict()
        # One load at a time: two would fight for the same cores and memory.
        self._loading = threading.Lock()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: str | None = None
        """Why the last attempt to load a version failed; None after one that did not."""

    def start(self) -> None:
        """Begin to follow the database, in a thread of its own."""
        self._thread = threading.Thread(target=self._follow, name="slot", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a load under way is finished first."""
        self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def wake(self) -> None:
        """Look now: a version has just been activated in this process."""
        self._wake.set()

    @property
    def current(self) -> LoadedModel | None:
        """The model that answers; None until the first one is ready."""
        return self._current

    def require(self) -> LoadedModel:
        """The model that answers.

        Raises:
            NoModel: None is ready yet, or none could be loaded.
        """
        if self._current is None:
            reason = self.error or "it is being loaded, or none was ever activated (POST /v1/models)"
            raise NoModel(f"No model is ready: {reason}.", retry_after_s=RETRY_AFTER_S)
        return self._current

    def lease(self, version: str) -> LoadedModel:
        """A version by name, loaded if need be (seconds: not on the event loop); the last few stay loaded.

        Raises:
            ModelNotFound: There is no such version.
            ModelNotServable: It failed to load.
        """
        current = self._current
        if current is not None and current.version == version:
            return current
        row = self._models.get(version)
        if row.state == "failed":
            raise ModelNotServable(f"Model {version} failed before ({row.error}): ask for another, or export it anew.")
        with self._loading:
            if version not in self._others:
                self._others[version] = self._load_other(version)
            self._others.move_to_end(version)
            while len(self._others) > self._settings.extra_models:
                self._others.popitem(last=False)
            return self._others[version]

    def refresh(self) -> None:
        """One look at the database, and the swap that follows from it. Raises nothing: the model that answers stays."""
        try:
            desired = self._models.desired()
            current = self._current
            if desired is None or (current is not None and current.version == desired.version):
                return
            with self._loading:
                self._swap(desired.version)
        except Exception as error:
            # The database was away for a moment, say. The next look comes soon.
            self.error = f"{type(error).__name__}: {error}"
            log.exception("cannot follow the database")

    def _swap(self, version: str) -> None:
        try:
            loaded = load_model(self._models.bundle(version), self._settings)
        except Exception as error:
            self._fail(version, error)
            return
        previous, self._current = self._current, loaded
        self.error = None
        self._others.pop(version, None)
        self._metrics.model_swaps.inc()
        self._metrics.model_info.clear()
        self._metrics.model_info.labels(version).set(1)
        log.info("model serves", version=version, previous=previous and previous.version, on=loaded.engine.provider)

    def _load_other(self, version: str) -> LoadedModel:
        try:
            return load_model(self._models.bundle(version), self._settings)
        except MaskloopError as error:
            if error.status == 404:
                raise
            raise ModelNotServable(f"Model {version} does not load: {error}") from None

    def _fail(self, version: str, error: Exception) -> None:
        self.error = f"{version}: {error}"
        self._metrics.model_failures.inc()
        log.error("model failed, the previous one stays", version=version, error=str(error))
        self._models.mark(version, "failed", error=str(error))

    def _follow(self) -> None:
        while not self._ending.is_set():
            self._wake.clear()
            self.refresh()
            self._wake.wait(self._settings.model_poll_s)
