"""Tables of retraining runs, of the schedule that starts some, and of the workers that perform them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.deletion_columns import DeletionColumns
from service.storage.tables.image_tables import Split
from service.storage.tables.table_base import Base, utc_now

RunStatus = Literal["queued", "running", "judged", "failed", "cancelled"]
RunReason = Literal["images", "labels", "schedule", "drift", "manual", "repeat", "auto"]
"""What started a run; "auto" in rows of former versions: images."""

ACTIVE: tuple[RunStatus, ...] = ("queued", "running")
ACTIVE_RUN = "status IN ('queued', 'running')"


class Run(DeletionColumns, Base):
    """A retraining run, from the snapshot to the verdict about its candidate."""

    __tablename__ = "runs"
    __table_args__ = (Index("one_active_run", text("(1)"), unique=True, sqlite_where=text(ACTIVE_RUN)),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    status: Mapped[RunStatus] = mapped_column(String(16))
    reason: Mapped[RunReason] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    """Attempts since the last progress, including a running one that has made none; a clean stop is not counted."""
    cancel_requested: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    phase: Mapped[str | None] = mapped_column(String(32))
    step: Mapped[int | None]
    steps: Mapped[int | None]
    loss: Mapped[float | None]
    error: Mapped[str | None] = mapped_column(Text)
    base_version: Mapped[str | None] = mapped_column(String(64))
    candidate_version: Mapped[str | None] = mapped_column(String(64))
    miou_before: Mapped[float | None]
    miou_after: Mapped[float | None]
    report: Mapped[dict[str, Any] | None]
    number: Mapped[int] = mapped_column(BigInteger, unique=True, index=True, server_default="0")
    """1, 2, ... in the order of their start."""
    image_sequence: Mapped[int | None] = mapped_column(BigInteger)
    """`Pool.image_sequence` of the snapshot: the run uses the images up to it. NULL: no snapshot yet."""
    label_sequence: Mapped[int | None] = mapped_column(BigInteger)
    """`Pool.label_sequence` of the snapshot."""
    fence: Mapped[int] = mapped_column(default=0, server_default="0")
    """Number of claims so far: every write of a worker requires the value of its own claim."""
    beats: Mapped[int] = mapped_column(default=0, server_default="0")
    """Incremented by the worker while it lives."""
    saved_step: Mapped[int] = mapped_column(default=0, server_default="0")
    """Highest step whose state the trainer has saved."""
    holder: Mapped[str | None] = mapped_column(String(200))
    """Identity of the last worker process; see `process_identity`."""
    program: Mapped[str | None] = mapped_column(String(200))
    """Identity of the last trainer or exporter process."""
    deletion_sequence: Mapped[int | None] = mapped_column(BigInteger)
    """`Pool.deletion_sequence` of the snapshot: images deleted later were in it."""
    unlabelled: Mapped[int | None]
    """Number of unlabelled images in the snapshot."""
    repeats: Mapped[str | None] = mapped_column(String(64))
    """The run whose snapshot and recipe this run uses again."""
    from_encoder: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether training starts from the encoder, not from the weights of `base_version`."""
    environment: Mapped[dict[str, Any] | None]
    """Versions and device, as the trainer reported them when it last started."""
    classes_version: Mapped[int | None]
    """Version of the class list of the snapshot. NULL: no snapshot yet."""


class RunLabel(Base):
    """A label in a run's snapshot. The row stays if the image is deleted or labelled again."""

    __tablename__ = "run_labels"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    image_id: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    mask_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    """NULL in runs of versions that did not record it."""
    split: Mapped[Split] = mapped_column(String(16))
    group_name: Mapped[str | None] = mapped_column(String(200))
    """`Image.group_name`, or the id of the image's cluster of near-duplicates."""
    classes_version: Mapped[int | None]
    """`Image.classes_version` of the mask."""
    accepted_from: Mapped[str | None] = mapped_column(String(64))
    """`Image.accepted_from` of the mask."""


class RunEvent(Base):
    """An event of a run. Ids increase."""

    __tablename__ = "run_events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    event: Mapped[dict[str, Any]]


class ScheduleCheck(Base):
    """The last time up to which the cron schedule was answered: one row, or none before the first check."""

    __tablename__ = "schedule_checks"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    schedule: Mapped[str] = mapped_column(String(200))
    """Cron expression and time zone: times before a change of them do not count."""
    checked_at: Mapped[datetime]


class Worker(Base):
    """A worker process. `seen_at` is for people: it is compared with no clock."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    seen_at: Mapped[datetime] = mapped_column(default=utc_now)
    can_train: Mapped[bool]
    """Whether it has the trainer and the exporter."""
    pid: Mapped[int]
    host: Mapped[str] = mapped_column(String(200))
    beats: Mapped[int] = mapped_column(default=0, server_default="0")
    """Incremented by the worker while it lives."""
    process: Mapped[str | None] = mapped_column(String(200))
    """Its identity; see `process_identity`."""
