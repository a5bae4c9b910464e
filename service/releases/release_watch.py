"""Background thread of a serving process: write traffic counters, supersede stale releases, withdraw worse models.

Every process does this; each change is made by compare-and-set, so that it happens once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.releases.transitions import is_current, supersede_others, withdraw
from service.releases.watch.regression import find_regression, read_both
from service.releases.watch.traffic_counters import TrafficCounters, write_counts
from service.settings import Settings
from service.storage.database import Database
from service.storage.storage_faults import reason_of, storage_fault
from service.storage.tables import OPEN, Release

log = structlog.stdlib.get_logger(__name__)

STOP_TIMEOUT_S = 30.0


class ReleaseWatch:
    """The thread. `on_activation` is called after it has activated a version."""

    def __init__(
        self, settings: Settings, database: Database, counters: TrafficCounters, on_activation: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._database = database
        self._counters = counters
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
            releases = session.scalars(select(Release).where(Release.state.in_((*OPEN, "serving")))).all()
            stale = not all(is_current(session, release) for release in releases)
            worse = {release.id: why for release in releases if (why := self._regression(session, release))}
        if stale:
            with self._database.write() as session:
                supersede_others(session)
        for release_id, why in worse.items():
            with self._database.write() as session:
                withdrawn = withdraw(session, session.get_one(Release, release_id), why)
            if withdrawn:
                self._on_activation()

    def _write_counters(self) -> None:
        counts = self._counters.take()
        if not counts:
            return
        try:
            with self._database.write() as session:
                write_counts(session, counts)
        except BaseException:
            self._counters.put_back(counts)
            raise

    def _regression(self, session: Session, release: Release) -> str | None:
        if release.state != "serving" or not release.watched:
            return None
        new, old = read_both(session, release)
        if new.requests > self._settings.watch_requests:
            return None
        return find_regression(new, old, self._settings.watch_level)

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.model_poll_s):
            self._try_tick()
        self._try_tick()

    def _try_tick(self) -> None:
        try:
            self.tick()
            self._last_fault = ""
        except Exception as error:
            fault = str(storage_fault(error, self._settings.data_dir) or repr(error))
            if fault != self._last_fault:
                log.warning("cannot watch the releases; it is tried again", reason=fault, cause=reason_of(error))
            self._last_fault = fault
