"""Let the candidate of a shadow release compute answers again, unseen, while the service has nothing else to do.

A thread of the lowest priority takes one image at a time, and starts it only while no request is in progress. Images
that come meanwhile are dropped, so that no request waits for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue

import structlog

from service.models.loading import LoadedModel
from service.releases.rollout.candidate_model import Candidate, CandidateModel
from service.releases.rollout.disagreement import Disagreement, compare_masks
from service.segmentation.inference.cancellation import InferenceCancelled
from service.segmentation.inference.predictor import Mask, Pixels
from service.settings import Settings

log = structlog.stdlib.get_logger(__name__)

PATIENCE_S = 10.0
"""Time after which an image that found the service busy is dropped."""
POLL_S = 0.005
LOWEST_PRIORITY = 19
STOP_TIMEOUT_S = 30.0
SMALL_DIVISOR = 4
"""Larger images than this part of the memory limit would need memory that requests may need."""


@dataclass(frozen=True, slots=True)
class _Offer:
    candidate: Candidate
    image_HW3: Pixels
    mask_HW: Mask


class ShadowRunner:
    """The thread. `is_busy` says whether requests are in progress."""

    def __init__(self, settings: Settings, candidates: CandidateModel, is_busy: Callable[[], bool]) -> None:
        self._share = settings.shadow_share
        self._max_bytes = settings.max_inference_bytes // SMALL_DIVISOR
        self._candidates = candidates
        self._is_busy = is_busy
        self._offers: Queue[_Offer] = Queue(maxsize=1)
        self._due = 0.0
        self._lock = threading.Lock()
        self._counts: dict[int, Disagreement] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, after an inference in progress."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def offer(self, active: LoadedModel, image_HW3: Pixels, mask_HW: Mask) -> None:
        """Compare an answer of the active model if it is in the share and there is time. Returns at once."""
        candidate = self._candidates.shadow(active)
        if candidate is None or candidate.loaded.value_range != active.value_range:
            return
        self._due += self._share
        if self._due < 1:
            return
        self._due -= 1
        try:
            self._offers.put_nowait(_Offer(candidate, image_HW3, mask_HW))
        except Full:
            self.put_back({candidate.release_id: Disagreement(dropped=1)})

    def take(self) -> dict[int, Disagreement]:
        """Return the counts by release since the last call."""
        with self._lock:
            taken, self._counts = self._counts, {}
        return taken

    def put_back(self, counts: dict[int, Disagreement]) -> None:
        """Add counts, such as those that could not be written."""
        with self._lock:
            for release_id, each in counts.items():
                self._counts.setdefault(release_id, Disagreement()).add(each)

    def _run(self) -> None:
        with suppress(OSError, AttributeError):
            # On Linux, of this thread only.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        while not self._stopping.is_set():
            try:
                offer = self._offers.get(timeout=0.1)
            except Empty:
                continue
            self.put_back({offer.candidate.release_id: self._compare(offer)})
            del offer

    def _compare(self, offer: _Offer) -> Disagreement:
        predictor = offer.candidate.loaded.engine
        deadline = time.monotonic() + PATIENCE_S
        try:
            if predictor.plan(*offer.image_HW3.shape[:2]).estimated_bytes > self._max_bytes:
                return Disagreement(dropped=1)
            while time.monotonic() < deadline and not self._stopping.is_set():
                if self._is_busy():
                    time.sleep(POLL_S)
                    continue
                with suppress(InferenceCancelled):
                    found = predictor.run(offer.image_HW3, 1, self._is_busy)
                    return compare_masks(offer.mask_HW, found.mask_HW, offer.candidate.loaded.class_table.names)
        except Exception as error:
            log.warning("the candidate failed", version=offer.candidate.loaded.version, reason=str(error))
            return Disagreement(errors=1)
        return Disagreement(dropped=1)
