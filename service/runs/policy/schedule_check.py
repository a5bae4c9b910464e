"""Whether a time of the cron schedule has passed that no run has answered.

The time up to which the schedule was answered is a row, so that times which pass while no worker runs start one run.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy.orm import Session

from service.cron_schedule import CronSchedule
from service.storage.tables import ScheduleCheck

# An answer that lies further in the future was dated by a wrong clock.
CLOCK_TOLERANCE = timedelta(hours=1)


def check_schedule(session: Session, schedule: CronSchedule, now: datetime) -> Literal["new", "waiting", "passed"]:
    """Return "passed" if a time of the schedule lies between the last answer and `now`, "new" without an answer."""
    row = session.get(ScheduleCheck, 1)
    if row is None or row.schedule != str(schedule) or row.checked_at > now + CLOCK_TOLERANCE:
        return "new"
    return "passed" if schedule.next_after(row.checked_at) <= now else "waiting"


def answer(session: Session, schedule: CronSchedule, now: datetime) -> None:
    """Record that all times of the schedule up to `now` are answered."""
    session.merge(ScheduleCheck(id=1, schedule=str(schedule), checked_at=now))
