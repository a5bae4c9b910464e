"""Decide when to retrain, and start runs.

The row of a run is written first; then its id is sent to the broker. Its worker takes the snapshot of the pool.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.errors import Conflict, NoModel, NotEnoughImages, QueueUnreachable, RunActive, TrainerMissing, Unavailable
from service.images.pool_counters import read_counts
from service.metrics import Metrics
from service.models.model_store import ModelStore
from service.runs.liveness import Liveness
from service.runs.run_store import add_event
from service.settings import Settings
from service.storage.database import Database
from service.storage.tables import ACTIVE, Image, Pool, Run, RunReason, utc_now

log = structlog.stdlib.get_logger(__name__)

# No automatic run starts for this time after a failed one, and for twice as long after each further one, up to 17
# hours.
FIRST_PAUSE = timedelta(minutes=2)
MAX_FAILURES = 10
# Pause between two checks for uploads, while a due run cannot start.
OBSTACLE_S = 1.0
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
        self._due_from = 0
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
                if not self._is_due(session):
                    return None
                self._checked_at = time.monotonic()
                _check(session, self.settings, self.liveness)
            return self.start("auto")
        except (Conflict, Unavailable) as error:
            if not isinstance(error, RunActive) and str(error) != self._last_obstacle:
                log.warning("a run is due but cannot start", reason=str(error))
                self._last_obstacle = str(error)
            return None

    def start(self, reason: RunReason) -> Run:
        """Write a run, then enqueue it.

        Raises RunActive (for "auto" also if no run is due any more), NotEnoughImages, TrainerMissing if no live worker
        can train, or NoModel, since the active model defines the classes.
        """
        base = self.models.activated()
        if base is None:
            raise NoModel("No model is active, which defines the classes: upload one (POST /v1/models), activate it.")
        try:
            with self.database.write() as session:
                if reason == "auto" and not self._is_due(session):
                    # There were enough a moment ago, before the lock.
                    raise RunActive("Another process has just started a run: see GET /v1/runs.")
                _check(session, self.settings, self.liveness)
                run = _insert(session, reason, base.version)
        except IntegrityError:
            raise RunActive("Another process has just started a run: see GET /v1/runs.") from None
        self.metrics.runs_started.labels(reason).inc()
        log.info("run written", run_id=run.id, reason=reason, base=base.version)
        try:
            self.enqueue(run.id)
        except QueueUnreachable as error:
            log.warning("run not enqueued; the worker's sweep will retry", run_id=run.id, reason=str(error))
        return run

    def _is_due(self, session: Session) -> bool:
        wanted, found = self.settings.retrain_after_images, new_images(session, self.settings.retrain_after_images)
        # Labels and deletions only reduce what was found.
        self._due_from = session.get_one(Pool, 1).image_sequence + wanted - found
        return found == wanted and not pause_after_failures(session)


def new_images(session: Session, limit: int) -> int:
    """Count unlabelled images, up to a limit, after the snapshot of the last run that learned or was cancelled."""
    last = session.scalar(select(func.max(Run.image_sequence)).where(Run.status.not_in((*ACTIVE, "failed")))) or 0
    newer = select(Image.id).where(Image.mask_sha256.is_(None), Image.sequence > last).limit(limit)
    return session.scalars(select(func.count()).select_from(newer.subquery())).one()


def pause_after_failures(session: Session) -> timedelta:
    """Return how long no run starts by itself, since the last ones failed."""
    ended = select(Run.status, Run.finished_at).where(Run.status.not_in(ACTIVE)).order_by(Run.number.desc())
    failures, last = 0, None
    for status, finished_at in session.execute(ended.limit(MAX_FAILURES)):
        if status != "failed":
            break
        failures, last = failures + 1, last or finished_at
    if last is None:
        return timedelta(0)
    since = utc_now() - last
    # A clock that was set back must not extend the pause.
    return max(FIRST_PAUSE * 2 ** (failures - 1) - since, timedelta(0)) if since >= timedelta(0) else timedelta(0)


def _check(session: Session, settings: Settings, liveness: Liveness) -> None:
    active = session.scalars(select(Run.id).where(Run.status.in_(ACTIVE))).first()
    if active is not None:
        raise RunActive(f"Run {active} is active: wait for it, or POST /v1/runs/{active}/cancel.")
    _check_labels(session, settings.min_labelled_images)
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


def _insert(session: Session, reason: RunReason, base_version: str) -> Run:
    now = utc_now()
    run = Run(
        id=f"{now:%Y%m%dT%H%M%S}-{uuid4().hex[:8]}",
        number=(session.scalar(select(func.max(Run.number))) or 0) + 1,
        status="queued",
        reason=reason,
        created_at=now,
        base_version=base_version,
    )
    session.add(run)
    session.flush()
    add_event(session, run.id, "queued", reason=reason)
    session.refresh(run)
    return run
