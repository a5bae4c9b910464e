"""The model that answers, swapped under load.

A thread looks at the database for the version that should serve. It loads, probes and warms a new one while the present
one goes on answering, and then swaps them with one assignment. Requests that began with the old one keep it until they
are done. Where the new one fails, the old one stays. A broken bundle is marked so in its row, for all processes; what
is only the machine's trouble (no memory, no CUDA, no answer from the disk) is tried again for as long as it is wanted.
"""

from __future__ import annotations

import threading
import time

import structlog

from service.allocator import trim_heap
from service.errors import BundleInvalid, MaskloopError, NoModel, names_only
from service.metrics import Metrics
from service.models.loading import LoadedModel, load_model
from service.models.model_cache import ModelCache
from service.models.model_store import ModelStore
from service.settings import Settings

log = structlog.stdlib.get_logger(__name__)

STOP_TIMEOUT_S = 30.0
RETRY_AFTER_S = 2
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0


class ActiveModel:
    """The active model of this process, and a few others that clients ask for by version."""

    def __init__(self, settings: Settings, models: ModelStore, metrics: Metrics) -> None:
        self._settings = settings
        self._models = models
        self._metrics = metrics
        self._current: LoadedModel | None = None
        self._previous: str | None = None
        self._others = ModelCache(settings, models, self._forget)
        self._postponed: str | None = None
        self._attempts = 0
        self._not_before = 0.0
        self._away = False
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
        """Look now, and try now: a version has just been activated in this process."""
        self._not_before = 0.0
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
            ModelNotServable: It is not ready, or does not load.
            ModelLoading: This one or another is being loaded.
            Unavailable: The machine cannot load it.
        """
        current = self._current
        return current if current is not None and current.version == version else self._others.lease(version)

    @property
    def resident(self) -> frozenset[str]:
        """The versions that are loaded."""
        current = self._current
        return self._others.resident | ({current.version} if current is not None else set())

    @property
    def loading(self) -> str | None:
        """The version, asked for by name, that is being loaded."""
        return self._others.loading

    def forget(self, version: str) -> None:
        """Give the memory of a version back, unless it is the one that answers."""
        self._others.forget(version)

    def refresh(self) -> None:
        """One look at the database, and the swap that follows from it. Raises nothing: the model that answers stays."""
        try:
            desired = self._models.desired()
            self._away, self.error = False, None if self._away else self.error
            if desired is not None:
                self._pursue(desired.version)
        except Exception as error:
            self._away = True
            # The database was away for a moment, say. The next look comes soon.
            self.error = names_only(f"{type(error).__name__}: {error}")
            log.exception("cannot follow the database")

    def _pursue(self, version: str) -> None:
        if version != self._postponed:
            # Somebody wants another one than the one that could not be loaded: that failure is history.
            self.error = self.error if self._postponed is None else None
            self._postponed, self._attempts, self._not_before = None, 0, 0.0
        current = self._current
        if (current is None or current.version != version) and time.monotonic() >= self._not_before:
            self._swap(version)

    def _swap(self, version: str) -> None:
        try:
            loaded = load_model(self._models.bundle(version), self._settings)
        except BundleInvalid as error:
            self._fail(version, error)
            return
        except Exception as error:
            self._postpone(version, error)
            return
        # Whoever sees the new one sees no trouble any more.
        self._postponed, self._attempts, self.error = None, 0, None
        previous, self._current = self._current, loaded
        trim_heap()
        self._others.forget(version)
        self._metrics.model_swaps.inc()
        self._metrics.serves(version, loaded.artifact.precision, loaded.engine.provider)
        self._previous = previous.version if previous else None
        self._forget()
        log.info("model serves", version=version, previous=previous and previous.version, on=loaded.engine.provider)

    def _forget(self) -> None:
        """The series of versions that are no longer loaded; those of the one before stay, to be read once more."""
        current = self._current.version if self._current else None
        self._metrics.keep_models({v for v in (current, self._previous, *self._others.versions) if v})

    def _fail(self, version: str, error: BundleInvalid) -> None:
        """The bundle is at fault: no process should serve it, so the row says so to all."""
        self.error = names_only(f"{version}: {error}")
        self._metrics.model_failures.inc()
        log.error("model failed, the previous one stays", version=version, error=str(error))
        self._models.mark(version, "failed", error=names_only(str(error)))

    def _postpone(self, version: str, error: Exception) -> None:
        """This machine is at fault, now: another one may serve it, and this one tries again."""
        text = str(error) if isinstance(error, MaskloopError) else f"{type(error).__name__}: {error}"
        self.error = names_only(f"{version}: {text}")
        wait_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**self._attempts)
        self._postponed, self._attempts, self._not_before = version, self._attempts + 1, time.monotonic() + wait_s
        self._metrics.model_failures.inc()
        log.error("model cannot be loaded now, trying again", version=version, error=text, in_s=wait_s)

    def _follow(self) -> None:
        while not self._ending.is_set():
            self._wake.clear()
            self.refresh()
            self._wake.wait(self._settings.model_poll_s)
