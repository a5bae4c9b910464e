"""When to retrain. The run and its snapshot of the pool are one transaction; the id goes to the broker after it.

A message that gets lost costs nothing but time: the worker's sweep enqueues what is queued in the database again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import structlog
from sqlalchemy import func, insert, literal, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.errors import Conflict, NoModel, NotEnoughImages, QueueUnreachable, RunActive, TrainerMissing, Unavailable
from service.metrics import Metrics
from service.models.model_store import ModelStore
from service.runs.reaper import SILENT_HEARTBEATS
from service.runs.run_store import ACTIVE, say
from service.settings import Settings
from service.storage.database import Database
from service.storage.tables import Image, Run, RunImage, RunReason, Worker, utc_now

log = structlog.stdlib.get_logger(__name__)

INSTALL = "`make trainer` (or `uv pip install '.[trainer,exporter]'` into its environment)"


class RetrainPolicy:
    """Decides, writes the run, and has its id enqueued."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        models: ModelStore,
        metrics: Metrics,
        enqueue: Callable[[str], None],
    ) -> None:
        # `enqueue` puts the id of a run into the broker, or raises QueueUnreachable.
        self._settings = settings
        self._database = database
        self._models = models
        self._metrics = metrics
        self._enqueue = enqueue
        # Said once and not again with each image.
        self._told = ""

    def consider(self) -> Run | None:
        """Start a run if enough new images have come in and nothing forbids it. After each image, and by the sweep."""
        try:
            # Nearly always the answer is no: found out by reading, which holds up nobody.
            with self._database.read() as session:
                _check(session, self._settings, "auto")
            return self.start("auto")
        except (Conflict, Unavailable) as error:
            # Not now: labels are missing, a run is active, nobody can train. The next image or the sweep asks again.
            if not isinstance(error, RunActive) and str(error) != self._told:
                log.warning("a run is due and cannot start", because=str(error))
                self._told = str(error)
            return None

    def start(self, reason: RunReason) -> Run:
        """Write a run and its snapshot, then enqueue it.

        Raises:
            RunActive: One run at a time.
            NotEnoughImages: Labels or validation images are missing, or (reason "auto") too few new images.
            TrainerMissing: No living worker can train.
            NoModel: There is no model whose classes could be trained.
        """
        base = self._models.desired()
        if base is None:
            raise NoModel("No model is active, so there are no classes to train: POST /v1/models first.")
        try:
            with self._database.write() as session:
                _check(session, self._settings, reason)
                run = _insert(session, reason, base.version)
        except IntegrityError:
            raise RunActive("Another process has just started a run: GET /v1/runs shows it.") from None
        self._metrics.runs_started.labels(reason).inc()
        log.info("run written", run_id=run.id, reason=reason, base=base.version)
        try:
            self._enqueue(run.id)
        except QueueUnreachable as error:
            log.warning("run not enqueued, the worker's sweep will do it", run_id=run.id, because=str(error))
        return run


def enough_new_images(session: Session, wanted: int) -> bool:
    """Whether so many unlabelled images came in after the last run's snapshot, whatever became of that run."""
    query = select(Image.id).where(Image.mask_sha256.is_(None))
    last = session.scalar(select(func.max(Run.created_at)))
    if last is not None:
        query = query.where(Image.created_at > last)
    # Looks at no more of a large pool than it takes to say yes.
    return len(session.scalars(query.limit(wanted)).all()) == wanted


def _check(session: Session, settings: Settings, reason: RunReason) -> None:
    if reason == "auto" and not enough_new_images(session, settings.retrain_after_images):
        raise NotEnoughImages(f"Fewer than {settings.retrain_after_images} images came in since the last run.")
    active = session.scalars(select(Run.id).where(Run.status.in_(ACTIVE))).first()
    if active is not None:
        raise RunActive(f"Run {active} is active: wait for it, or POST /v1/runs/{active}/cancel.")
    _check_labels(session, settings.min_labelled_images)
    _check_workers(session, settings.heartbeat_s)


def _check_labels(session: Session, least: int) -> None:
    query = select(Image.split, func.count()).where(Image.mask_sha256.is_not(None)).group_by(Image.split)
    counts = dict(session.execute(query).all())
    labelled, val = counts.get("labelled", 0), counts.get("val", 0)
    if labelled < least:
        raise NotEnoughImages(
            f"{labelled} images are labelled for training and {least} are needed: PUT more masks to "
            "/v1/images/ID/mask?split=labelled, or lower MASKLOOP_MIN_LABELLED_IMAGES."
        )
    if val < 1:
        raise NotEnoughImages(
            "No image is labelled for validation, so a candidate could not be judged: PUT /v1/images/ID/mask?split=val."
        )


def _check_workers(session: Session, heartbeat_s: float) -> None:
    alive_since = utc_now() - timedelta(seconds=SILENT_HEARTBEATS * heartbeat_s)
    can_train = session.scalars(select(Worker.can_train).where(Worker.seen_at >= alive_since)).all()
    if not can_train:
        raise TrainerMissing("No worker is alive: start one with `python -m service worker`, or all with `up`.")
    if not any(can_train):
        raise TrainerMissing(
            f"The trainer is not installed where the worker runs: {INSTALL}, then start the service or its worker "
            "again. Or name an interpreter that has it in MASKLOOP_TRAINER_PYTHON."
        )


def _insert(session: Session, reason: RunReason, base_version: str) -> Run:
    now = utc_now()
    run = Run(
        id=f"{now:%Y%m%dT%H%M%S}-{uuid4().hex[:8]}",
        status="queued",
        reason=reason,
        created_at=now,
        base_version=base_version,
    )
    session.add(run)
    session.flush()
    snapshot = select(literal(run.id), Image.id, func.coalesce(Image.split, "unlabelled"))
    session.execute(insert(RunImage).from_select(["run_id", "image_id", "role"], snapshot))
    counted = select(RunImage.role, func.count()).where(RunImage.run_id == run.id).group_by(RunImage.role)
    say(session, run.id, "queued", images=dict(session.execute(counted).all()))
    session.refresh(run)
    return run
