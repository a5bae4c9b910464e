"""Let the candidate of a shadow release segment images again, unseen, while the service has nothing else to do.

A thread takes one image at a time, and starts it only if no request was in progress for a moment. The next request
stops it in the middle of the graph, and the image is tried again later. So no request waits for it. A thread with a low
priority would delay requests instead: while it waits for the processor, it may hold Python's global lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, Full, Queue

import structlog

from service.errors import ImageTooLarge
from service.models.loading import LoadedModel
from service.releases.rollout.candidate_model import Candidate, CandidateModel
from service.releases.rollout.disagreement import Disagreement, compare_masks
from service.segmentation.inference.cancellation import Cancellation, InferenceCancelled
from service.segmentation.inference.predictor import Mask, Pixels
from service.settings import Settings

log = structlog.stdlib.get_logger(__name__)

PATIENCE_S = 10.0
"""Time after which an image that found the service busy is dropped."""
QUIET_S = 0.05
"""Time without a request before an image is started: clients often send the next one at once."""
POLL_S = 0.005
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
        self._inference = Cancellation()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and an inference in progress."""
        self._stopping.set()
        self.interrupt()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def interrupt(self) -> None:
        """Stop an inference in progress: a request has come. Returns at once."""
        self._inference.cancel()

    def offer(self, active: LoadedModel, image_HW3: Pixels, mask_HW: Mask) -> None:
        """Compare an answer of the active model if it is in the share and there is time. Returns at once."""
        candidate = self._candidates.shadow(active)
        if candidate is None or candidate.loaded.value_range != active.value_range:
            return
        self._due += self._share
        if self._due < 1:
            return
        self._due -= 1
        if not (self._is_small(candidate, image_HW3) and self._is_queued(_Offer(candidate, image_HW3, mask_HW))):
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

    def _is_small(self, candidate: Candidate, image_HW3: Pixels) -> bool:
        try:
            plan = candidate.loaded.engine.plan(*image_HW3.shape[:2])
        except ImageTooLarge:
            return False
        return plan.estimated_bytes <= self._max_bytes

    def _is_queued(self, offer: _Offer) -> bool:
        try:
            self._offers.put_nowait(offer)
        except Full:
            return False
        return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                offer = self._offers.get(timeout=0.1)
            except Empty:
                continue
            self.put_back({offer.candidate.release_id: self._compare(offer)})
            del offer

    def _compare(self, offer: _Offer) -> Disagreement:
        deadline = time.monotonic() + PATIENCE_S
        while self._is_quiet(deadline):
            self._inference = Cancellation()
            # A request may have come before the line above.
            if self._is_busy():
                continue
            try:
                found = offer.candidate.loaded.engine.run(offer.image_HW3, 1, self._inference)
            except InferenceCancelled:
                continue
            except Exception as error:
                log.warning("the candidate failed", version=offer.candidate.loaded.version, reason=str(error))
                return Disagreement(errors=1)
            return compare_masks(offer.mask_HW, found.mask_HW, offer.candidate.loaded.class_table.names)
        return Disagreement(dropped=1)

    def _is_quiet(self, deadline: float) -> bool:
        """Wait until no request was in progress for `QUIET_S`; return False if that is not so before the deadline."""
        since = now = time.monotonic()
        while now - since < QUIET_S:
            if now > deadline or self._stopping.is_set():
                return False
            time.sleep(POLL_S)
            now = time.monotonic()
            since = now if self._is_busy() else since
        return True
