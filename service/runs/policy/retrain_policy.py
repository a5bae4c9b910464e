"""Decide when to retrain, and start runs.

The row of a run is written first; then its id is sent to the broker. Its worker takes the snapshot of the pool.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import get_args
from uuid import uuid4

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.classes.class_list import ClassHistory
from service.errors import (
    BundleInvalid,
    Conflict,
    NoModel,
    NotEnoughImages,
    QueueUnreachable,
    RunActive,
    RunNotRepeatable,
    TrainerMissing,
    Unavailable,
)
from service.images.pool_counters import read_counts
from service.metrics import Metrics
from service.models.model_store import ModelStore
from service.runs.leases.liveness import Liveness
from service.runs.policy.labelled_classes import check_classes
from service.runs.policy.next_run import NextRun, describe_next_run
from service.runs.policy.repeat import plan_repeat
from service.runs.policy.schedule_check import answer, check_schedule
from service.runs.policy.start_point import find_start
from service.runs.policy.triggers import Trigger, count_new, find_pause, new_images, new_labels
from service.runs.run_store import add_event
from service.settings import Settings
from service.storage.database import Database
from service.storage.tables import ACTIVE, Pool, Run, RunReason, utc_now

log = structlog.stdlib.get_logger(__name__)

# Pause between two checks for uploads, while a due run cannot start.
OBSTACLE_S = 1.0
SCHEDULE = "the schedule's last answer"
ANOTHER = "Another process has just started a run: see GET /v1/runs."
INSTALL = "run `make trainer` (or `uv pip install '.[trainer,exporter]'` in its environment)"


@dataclass
class RetrainPolicy:
    """Decides whether a run is due, and starts it."""

    settings: Settings
    database: Database
    models: ModelStore
    metrics: Metrics
    liveness: Liveness
    enqueue: Callable[[str], None]

    def __post_init__(self) -> None:
        # Log each obstacle once, not for every image.
        self._last_obstacle = ""
        self._due_from: float = 0
        self._checked_at = -OBSTACLE_S

    def consider_image(self, sequence: int) -> Run | None:
        """As `consider`, after an upload; returns at once while too few images can have arrived, or after a check."""
        if sequence < self._due_from or time.monotonic() - self._checked_at < OBSTACLE_S:
            return None
        return self.consider()

    def consider(self) -> Run | None:
        """Start a run if one is due and possible. Called after each label and by the sweep."""
        try:
            # Usually no run is due: a read transaction does not block other requests.
            with self.database.read() as session:
                trigger = self._due(session)
                if trigger is None:
                    return None
            self._checked_at = time.monotonic()
            history = self.models.classes.history()
            with self.database.read() as session:
                _check(session, self.settings, self.liveness, history)
            return self.start(trigger)
        except (Conflict, Unavailable) as error:
            self.report_obstacle(error)
            return None

    def report_obstacle(self, error: Conflict | Unavailable) -> None:
        """Log why a run that is due cannot start, unless that is known, or another run is active."""
        if not isinstance(error, RunActive) and str(error) != self._last_obstacle:
            log.warning("a run is due but cannot start", reason=str(error))
            self._last_obstacle = str(error)

    def consider_schedule(self, now: datetime | None = None) -> Run | None:
        """Start a run if a time of the schedule has passed, and there are new images or labels. Called by the sweep.

        A time at which no run can start is skipped.
        """
        schedule, now = self.settings.schedule, now or utc_now()
        if schedule is None:
            return None
        with self.database.read() as session:
            state = check_schedule(session, schedule, now)
            if state == "waiting":
                return None
            skipped = "the schedule is new" if state == "new" else _why_not_now(session, self.settings)
        if skipped is None:
            try:
                return self.start("schedule", now=now)
            except (Conflict, Unavailable) as error:
                skipped = str(error)
        log.info("no scheduled run", reason=skipped, next=str(schedule.next_after(now)))
        with self.database.write() as session:
            self.database.lock(session, SCHEDULE)
            answer(session, schedule, now)
        return None

    def next_run(self) -> NextRun:
        """Describe what is missing until the next run starts by itself."""
        obstacle, history = None, None
        try:
            history = self.models.classes.history()
        except (NoModel, BundleInvalid) as error:
            obstacle = str(error)
        with self.database.read() as session:
            if history is not None:
                try:
                    _check(session, self.settings, self.liveness, history)
                except (Conflict, Unavailable) as error:
                    obstacle = str(error)
            return describe_next_run(session, self.settings, obstacle, history)

    def start(self, reason: RunReason, *, start_from: str | None = None, now: datetime | None = None) -> Run:
        """Write a run, then enqueue it. `start_from` is "active", "encoder" or a version; None: the setting.

        Raises RunActive (for a trigger also if no run is due any more), NotEnoughImages, TrainerMissing if no live
        worker can train, LabelsUnusable if the labels show fewer than two classes, NoModel, since the active model
        gives the recipe, ModelNotFound or StartUnusable.
        """
        start = find_start(self.models, start_from or self.settings.start_from)
        run = Run(reason=reason, base_version=start.base_version, from_encoder=start.from_encoder)
        return self._write(run, now or utc_now(), self.models.classes.history())

    def repeat(self, run_id: str, *, without_deleted: bool = False) -> Run:
        """Start a run with the snapshot, recipe and seed of another one.

        Raises RunNotFound, RunNotRepeatable (also if the model from which it started was deleted), ImagesDeleted unless
        deleted images may be left out, RunActive or TrainerMissing.
        """
        with self.database.read() as session:
            run = plan_repeat(session, run_id, self.settings.data_dir / "runs", without_deleted=without_deleted)
        base = self.models.get(str(run.base_version))
        if base.state == "deleted":
            raise RunNotRepeatable(
                f"Run {run_id} started from {base.version}, which was deleted: upload its bundle again "
                "(POST /v1/models)."
            )
        return self._write(run, utc_now(), None)

    def _write(self, run: Run, now: datetime, history: ClassHistory | None) -> Run:
        """Write and enqueue a run, if none is active and its trigger still holds."""
        try:
            with self.database.write() as session:
                self._claim_trigger(session, run.reason, now)
                _check(session, self.settings, self.liveness, history)
                _insert(session, run)
        except IntegrityError:
            raise RunActive(ANOTHER) from None
        self._last_obstacle = ""
        self.metrics.runs_started.labels(run.reason).inc()
        log.info("run written", run_id=run.id, reason=run.reason, base=run.base_version)
        try:
            self.enqueue(run.id)
        except QueueUnreachable as error:
            log.warning("run not enqueued; the worker's sweep will retry", run_id=run.id, reason=str(error))
        return run

    def _claim_trigger(self, session: Session, reason: RunReason, now: datetime) -> None:
        """Check a trigger again under the lock: another process may have started its run. Raises RunActive."""
        if reason in get_args(Trigger) and self._due(session) is None:
            raise RunActive(ANOTHER)
        if reason == "schedule" and self.settings.schedule is not None:
            self.database.lock(session, SCHEDULE)
            if check_schedule(session, self.settings.schedule, now) != "passed":
                raise RunActive(ANOTHER)
            answer(session, self.settings.schedule, now)

    def _due(self, session: Session) -> Trigger | None:
        """Return the trigger of a run that is due."""
        wanted, new = self.settings.retrain_after_images, count_new(session, self.settings)
        # Labels and deletions only reduce what was found.
        missing = wanted - new.images if wanted else math.inf
        self._due_from = session.get_one(Pool, 1).image_sequence + missing
        trigger = new.trigger(self.settings)
        return trigger if trigger and find_pause(session, self.settings) is None else None


def _why_not_now(session: Session, settings: Settings) -> str | None:
    """Return why a time of the schedule starts no run."""
    pause = find_pause(session, settings)
    if pause is not None:
        return pause.reason
    new = new_images(session, 1) or new_labels(session, 1)
    return None if new else "there are no new images or labels"


def _check(session: Session, settings: Settings, liveness: Liveness, history: ClassHistory | None) -> None:
    """Check that a run can start; one without a `history` of the class list does not use the labels of the pool."""
    active = session.scalars(select(Run.id).where(Run.status.in_(ACTIVE))).first()
    if active is not None:
        raise RunActive(f"Run {active} is active: wait for it, or POST /v1/runs/{active}/cancel.")
    if history is not None:
        _check_labels(session, settings.min_labelled_images)
        check_classes(session, history)
    _check_workers(session, liveness)


def _check_labels(session: Session, minimum: int) -> None:
    counts = read_counts(session)
    labelled, val = counts.labelled, counts.val
    if labelled < minimum:
        raise NotEnoughImages(
            f"The number of images labelled for training is {labelled}, and must be at least {minimum}: PUT more "
            "masks to /v1/images/ID/mask?split=labelled, or lower MASKLOOP_MIN_LABELLED_IMAGES."
        )
    if val < 1:
        raise NotEnoughImages(
            "No image is labelled for validation, so a candidate cannot be evaluated: PUT /v1/images/ID/mask?split=val."
        )


def _check_workers(session: Session, liveness: Liveness) -> None:
    can_train = [worker.can_train for worker in liveness.living(session)]
    if not can_train:
        raise TrainerMissing("No worker is running: start one with `python -m service worker`, or all with `up`.")
    if not any(can_train):
        raise TrainerMissing(
            f"The trainer is not installed where the worker runs: {INSTALL}, then restart the service or its "
            "worker; or set MASKLOOP_TRAINER_PYTHON to an interpreter that has it."
        )


def _insert(session: Session, run: Run) -> None:
    now = utc_now()
    run.id, run.status, run.created_at = f"{now:%Y%m%dT%H%M%S}-{uuid4().hex[:8]}", "queued", now
    run.number = (session.scalar(select(func.max(Run.number))) or 0) + 1
    session.add(run)
    session.flush()
    add_event(session, run.id, "queued", reason=run.reason)
    session.refresh(run)
