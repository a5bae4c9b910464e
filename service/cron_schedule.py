"""Cron schedule in a time zone, computed by Celery's `crontab`; no beat process runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

FIELDS = 5


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """Cron expression (minute, hour, day of the month, month, day of the week; 0 is Sunday) in a time zone.

    With a day of the month and a day of the week, both must match.
    """

    expression: str
    zone: ZoneInfo

    def __str__(self) -> str:
        return f"{self.expression} {self.zone.key}"

    def next_after(self, time: datetime) -> datetime:
        """Return the first time of the schedule after an aware `time`, in UTC.

        A local time that the clock skips in spring counts an hour later; one that occurs twice in autumn counts once.
        """
        wall = self._wall_clock(time)
        while True:
            crontab = _crontab(self.expression, nowfun=lambda wall=wall: wall)
            wall += crontab.remaining_estimate(wall)
            # With the offset before a change of the clock: later than in spring, the first of two in autumn.
            instant: datetime = wall.replace(tzinfo=self.zone).astimezone(UTC)
            if instant > time:
                return instant

    def _wall_clock(self, time: datetime) -> datetime:
        """Local time, as if it were UTC, in which Celery does not see clock changes.

        On a day on which the clock was put forward, it is earlier by as much: the skipped times are still to come.
        """
        local, before = time.astimezone(self.zone), (time - timedelta(days=1)).astimezone(self.zone)
        skipped = max((local.utcoffset() or timedelta(0)) - (before.utcoffset() or timedelta(0)), timedelta(0))
        return local.replace(tzinfo=UTC, fold=0) - skipped


def parse_schedule(expression: str, zone: str) -> CronSchedule:
    """Read a cron expression and the name of a time zone. Raises ValueError."""
    try:
        schedule = CronSchedule(" ".join(expression.split()), parse_zone(zone))
        schedule.next_after(datetime.now(UTC))
    except Exception as error:
        # Celery has its own exceptions for parts of an expression.
        raise ValueError(
            f"{expression!r} is not a cron expression ({error}); write minute, hour, day of the month, month and day "
            "of the week, such as `0 3 * * *`"
        ) from None
    return schedule


def parse_zone(name: str) -> ZoneInfo:
    """Read the name of a time zone. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone; write a name such as UTC or Europe/Berlin") from None


def _crontab(expression: str, **options: Any) -> Any:
    # Most services have no schedule, and importing Celery is slow.
    from celery.schedules import crontab  # noqa: PLC0415

    fields = expression.split()
    if len(fields) != FIELDS:
        raise ValueError(f"it has {len(fields)} of {FIELDS} fields")
    minute, hour, day_of_month, month, day_of_week = fields
    return crontab(minute, hour, day_of_week, day_of_month, month, **options)
