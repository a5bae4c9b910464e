"""The candidate of a shadow or canary release, loaded in a serving process beside the active model."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from service.errors import BundleInvalid
from service.models.loading import LoadedModel, load_model
from service.models.model_store import ModelStore
from service.releases.watch.traffic_counters import TrafficCounters
from service.releases.watch.watched_predictor import watched
from service.settings import Settings
from service.storage.tables import Release

log = structlog.stdlib.get_logger(__name__)

RETRY_S = 10.0
HASH_BYTES = 8
NUMBERS = 1 << 8 * HASH_BYTES

Rollout = Literal["shadow", "canary"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A loaded candidate; `base_version` must be the model that answers the other requests."""

    release_id: int
    state: Rollout
    base_version: str | None
    loaded: LoadedModel


class CandidateModel:
    """Loads the candidate of the release that is rolled out, and says which requests it gets."""

    def __init__(self, settings: Settings, models: ModelStore, counters: TrafficCounters) -> None:
        self._settings = settings
        self._models = models
        self._counters = counters
        self._current: Candidate | None = None
        self._not_before = -RETRY_S

    def follow(self, release: Release | None) -> None:
        """Load the candidate of a release that is rolled out, if it is another one; drop it without a release.

        A fault of the machine is tried again later. Raises BundleInvalid if the candidate does not load.
        """
        if release is None or release.state not in ("shadow", "canary"):
            self._current = None
            return
        current = self._current
        if current is not None and (current.release_id, current.state) == (release.id, release.state):
            (loaded,) = self._models.classes.follow([current.loaded])
            self._current = replace(current, loaded=loaded)
            return
        if time.monotonic() < self._not_before:
            return
        try:
            loaded = load_model(self._models.bundle(release.version), self._settings)
            loaded = self._models.classes.shown(loaded)
        except BundleInvalid:
            raise
        except Exception as error:
            self._not_before = time.monotonic() + RETRY_S
            log.warning("cannot load the candidate; retrying", version=release.version, reason=str(error))
            return
        if release.state == "canary":
            loaded = watched(loaded, self._counters)
        self._current = Candidate(release.id, release.state, release.base_version, loaded)
        log.info("candidate is loaded", version=release.version, state=release.state)

    def shadow(self, active: LoadedModel) -> Candidate | None:
        """Return the candidate that also computes answers of the active model, unseen."""
        return self._rolled_out("shadow", active)

    @property
    def has_canary(self) -> bool:
        """Whether the candidate answers a share of the images."""
        return self._current is not None and self._current.state == "canary"

    def canary(self, active: LoadedModel, image: bytes | memoryview) -> LoadedModel | None:
        """Return the candidate if it gets this image, an encoded file or pixels.

        The same file, or the same pixels, always get the same model.
        """
        candidate = self._rolled_out("canary", active)
        if candidate is None or not is_chosen(image, candidate.loaded.version, self._settings.canary_share):
            return None
        return candidate.loaded

    def _rolled_out(self, state: Rollout, active: LoadedModel) -> Candidate | None:
        current = self._current
        return current if current and (current.state, current.base_version) == (state, active.version) else None


def is_chosen(image: bytes | memoryview, version: str, share: float) -> bool:
    """Whether a version gets an image, for a share (0..1) of all images. Each version gets other images."""
    key = version.encode()[: hashlib.blake2b.MAX_KEY_SIZE]
    number = int.from_bytes(hashlib.blake2b(image, digest_size=HASH_BYTES, key=key).digest())
    return number < share * NUMBERS
