"""What is missing until the next run starts by itself, in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.orm import Session

from service.classes.class_list import ClassHistory
from service.runs.policy.labelled_classes import classes_without_labels, quoted
from service.runs.policy.triggers import Trigger, count_new, find_pause
from service.settings import Settings
from service.storage.tables import utc_now


@dataclass(frozen=True, kw_only=True, slots=True)
class NextRun:
    """What starts the next run, and what prevents it."""

    due: Trigger | None
    """The trigger that is reached."""
    new_images: int
    """Unlabelled images since the last run that learned, counted up to `images_needed`."""
    images_needed: int
    """0: images start no run."""
    new_labels: int
    """Labels since the last run that learned, counted up to `labels_needed`."""
    labels_needed: int
    """0: labels start no run."""
    scheduled_at: datetime | None
    """The next time of the schedule."""
    on_drift: bool
    """Whether a drift alarm starts a run."""
    paused_until: datetime | None
    """No run starts by itself before."""
    pause_reason: str | None
    obstacle: str | None
    """Why none could start now, even on request."""
    classes_without_labels: list[str]
    """Names of the classes that no label for training shows: a run would not learn them."""
    message: str
    """All of it in words."""


def describe_next_run(
    session: Session, settings: Settings, obstacle: str | None, history: ClassHistory | None
) -> NextRun:
    """Describe the next run; `obstacle` says why none can start. `history` is that of the class list, if any."""
    now, schedule = utc_now(), settings.schedule
    pause = find_pause(session, settings)
    new = count_new(session, settings)
    counted = NextRun(
        due=new.trigger(settings),
        new_images=new.images,
        images_needed=settings.retrain_after_images,
        new_labels=new.labels,
        labels_needed=settings.retrain_after_labels,
        scheduled_at=schedule.next_after(now) if schedule else None,
        on_drift=settings.retrain_on_drift,
        paused_until=now + pause.remaining if pause else None,
        pause_reason=pause.reason if pause else None,
        obstacle=obstacle,
        classes_without_labels=classes_without_labels(session, history) if history else [],
        message="",
    )
    return replace(counted, message=" ".join(_sentences(counted)))


def _sentences(run: NextRun) -> Iterator[str]:
    if run.due:
        yield f"A run is due, because there are enough new {run.due}."
    elif triggers := list(_missing(run)):
        yield f"The next run starts {', or '.join(triggers)}."
    else:
        yield "Runs start on request only: every trigger is switched off in the settings."
    if run.paused_until:
        yield f"None starts by itself before {_time(run.paused_until)}, because {run.pause_reason}."
    if run.obstacle:
        yield f"None can start now: {run.obstacle}"
    elif run.due and not run.paused_until:
        yield "It starts within seconds."
    if run.classes_without_labels and not run.obstacle:
        yield f"No label for training shows {quoted(run.classes_without_labels)}."


def _missing(run: NextRun) -> Iterator[str]:
    if run.images_needed:
        yield f"after {_number(run.images_needed - run.new_images, 'more unlabelled image')}"
    if run.labels_needed:
        yield f"after {_number(run.labels_needed - run.new_labels, 'more label')}"
    if run.scheduled_at:
        yield f"at {_time(run.scheduled_at)} if there are new images or labels then"
    if run.on_drift:
        yield "on a drift alarm"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
