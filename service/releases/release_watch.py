"""Background thread of a serving process: write counters, roll candidates out, withdraw worse models.

Every process does this; each change is made by compare-and-set, so that it happens once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from sqlalchemy import select
from sqlalchemy.orm import defer

from service.errors import BundleInvalid, names_only
from service.releases.rollout.candidate_model import CandidateModel
from service.releases.rollout.disagreement import add_disagreement
from service.releases.rollout.shadow_runner import ShadowRunner
from service.releases.transitions import fail, finish_canary, is_current, supersede_others, withdraw
from service.releases.watch.regression import find_regression, read_both
from service.releases.watch.traffic_counters import Counts, TrafficCounters, write_counts
from service.settings import Settings
from service.storage.database import Database
from service.storage.storage_faults import reason_of, storage_fault
from service.storage.tables import OPEN, Release

log = structlog.stdlib.get_logger(__name__)

STOP_TIMEOUT_S = 30.0


class ReleaseWatch:
    """The thread. `on_activation` is called after it has activated a version."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        counters: TrafficCounters,
        candidates: CandidateModel,
        shadow: ShadowRunner,
        *,
        on_activation: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._counters = counters
        self._candidates = candidates
        self._shadow = shadow
        self._on_activation = on_activation
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_fault = ""

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="release-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write the last counters and stop the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def tick(self) -> None:
        """Do the work once. Counters that cannot be written are kept."""
        self._write_counters()
        with self._database.read() as session:
            query = select(Release).where(Release.state.in_((*OPEN, "serving"))).order_by(Release.id)
            query = query.options(defer(Release.verdict))
            releases = session.scalars(query).all()
            current = [release for release in releases if is_current(session, release)]
            traffic = {release.id: read_both(session, release) for release in current}
        if len(current) < len(releases):
            with self._database.write() as session:
                supersede_others(session)
        for release in current:
            self._act(release, *traffic[release.id])
        self._follow(current)

    def _act(self, release: Release, new: Counts, old: Counts) -> None:
        """Withdraw a worse candidate, or end its canary."""
        if release.state != "canary" and not (release.state == "serving" and release.watched):
            return
        settings = self._settings
        is_watched = release.state == "canary" or new.requests <= settings.watch_requests
        why = find_regression(new, old, settings.watch_level) if is_watched else None
        if why is None and (release.state == "serving" or new.requests < settings.canary_requests):
            return
        with self._database.write() as session:
            row = session.get_one(Release, release.id)
            done = withdraw(session, row, why) if why else finish_canary(session, row, new.requests)
        if done:
            self._on_activation()

    def _follow(self, current: list[Release]) -> None:
        rolled_out = [release for release in current if release.state in ("shadow", "canary")]
        newest = rolled_out[-1] if rolled_out else None
        try:
            self._candidates.follow(newest)
        except BundleInvalid as error:
            assert newest is not None  # noqa: S101 - nothing else is loaded
            with self._database.write() as session:
                fail(session, session.get_one(Release, newest.id), names_only(str(error)))

    def _write_counters(self) -> None:
        counts, compared = self._counters.take(), self._shadow.take()
        if not counts and not compared:
            return
        try:
            with self._database.write() as session:
                write_counts(session, counts)
                for release_id, disagreement in sorted(compared.items()):
                    add_disagreement(session, release_id, disagreement)
        except BaseException:
            self._counters.put_back(counts)
            self._shadow.put_back(compared)
            raise

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.model_poll_s):
            self._attempt(self.tick)
        self._attempt(self._write_counters)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
            self._last_fault = ""
        except Exception as error:
            fault = str(storage_fault(error, self._settings.data_dir) or repr(error))
            if fault != self._last_fault:
                log.warning("cannot watch the releases; it is tried again", reason=fault, cause=reason_of(error))
            self._last_fault = fault
