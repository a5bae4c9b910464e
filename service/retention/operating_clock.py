"""The time during which workers ran, by which retention counts ages.

A wall clock can jump by years, and every image would be old at once. So each worker adds the time that passed by its
monotonic clock. A pause without workers counts by the wall clock, but as a day at most: a clock that was set ahead
while no worker ran makes everything a day older, not more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.storage.database import Database
from service.storage.retention_tables import OperatingHour, OperatingTime
from service.storage.tables import Pool, utc_now

HOUR_S = 3600.0
LONGEST_PAUSE_S = 24 * HOUR_S
HOURS_PER_DAY = 24


class OperatingClock:
    """What a worker adds. `monotonic` returns seconds and never goes back, `now` the time in UTC."""

    def __init__(
        self,
        database: Database,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._monotonic = monotonic
        self._now = now
        self._seen: tuple[float, float] | None = None

    def advance(self) -> int:
        """Add the time since the last call of any worker; return the present hour."""
        with self._database.write() as session:
            time_row = session.get_one(OperatingTime, 1, with_for_update=True)
            passed_s = self._passed_s(time_row)
            if passed_s > 0:
                time_row.seconds += passed_s
            time_row.checked_at = self._now()
            hour = _hour(time_row)
            if session.get(OperatingHour, hour) is None:
                session.add(OperatingHour(hour=hour, image_sequence=session.get_one(Pool, 1).image_sequence))
        self._seen = (time_row.seconds, self._monotonic())
        return hour

    def _passed_s(self, row: OperatingTime) -> float:
        if self._seen is None:
            return min((self._now() - row.checked_at).total_seconds(), LONGEST_PAUSE_S)
        seconds, seen_at = self._seen
        # If another worker has added time, it is not added again.
        return self._monotonic() - seen_at if row.seconds == seconds else 0.0


def present_hour(session: Session) -> int:
    """Return the present hour, without adding to it."""
    return _hour(session.get_one(OperatingTime, 1))


def hour_before(hour: int, days: float) -> int:
    """Return the newest hour in which what was seen is at least so many days old in `hour`."""
    return hour - math.ceil(days * HOURS_PER_DAY) - 1


def newest_image_before(session: Session, hour: int) -> int:
    """Return the sequence of the newest image that had arrived in an hour; 0: none."""
    return session.scalar(select(func.max(OperatingHour.image_sequence)).where(OperatingHour.hour <= hour)) or 0


def _hour(row: OperatingTime) -> int:
    return int(row.seconds // HOUR_S)
