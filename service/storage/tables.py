"""Database tables, the source of truth about images, models and runs; files contain only the data.

All times are UTC and timezone-aware. A change here needs a migration.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Connection,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    event,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.scopes import Scope
from service.storage.deletion_columns import DeletionColumns, DeletionReason

Split = Literal["labelled", "val"]
Role = Literal["labelled", "val", "unlabelled"]
ModelState = Literal["candidate", "ready", "rejected", "failed", "withdrawn", "deleted"]
RunStatus = Literal["queued", "running", "judged", "failed", "cancelled"]
RunReason = Literal["images", "labels", "schedule", "drift", "manual", "repeat", "auto"]
"""What started a run; "auto" in rows of former versions: images."""
ReleaseState = Literal["judged", "asked", "shadow", "canary", "serving", "declined", "superseded", "withdrawn"]

ACTIVE: tuple[RunStatus, ...] = ("queued", "running")
UNSERVABLE: tuple[ModelState, ...] = ("failed", "withdrawn", "deleted")
OPEN: tuple[ReleaseState, ...] = ("judged", "asked", "shadow", "canary")
"""States of a release that is not decided."""
ROLLED_OUT: tuple[ReleaseState, ...] = ("shadow", "canary")
"""States of a release whose candidate gets a share of the traffic."""
ACTIVE_RUN = "status IN ('queued', 'running')"
UNLABELLED = "mask_sha256 IS NULL"
LABELLED = "mask_sha256 IS NOT NULL"
DUPLICATE = "duplicate_of IS NOT NULL"
VALID_KEY = "revoked_at IS NULL"


def utc_now() -> datetime:
    """Return the time, timezone-aware."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware UTC in Python, stored without the zone, which SQLite does not support."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - signature of SQLAlchemy
        """Convert an aware time to naive UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - signature of SQLAlchemy
        """Convert naive UTC to an aware time."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base class with a convention for constraint names, to which migrations refer."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON}  # noqa: RUF012 - read by SQLAlchemy at class creation


class Pool(Base):
    """Counters of the pool: one row, changed in the transaction of every change to `images`.

    The row's lock puts these transactions in order: an image that commits later has a larger sequence.
    """

    __tablename__ = "pool"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    image_sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    """Number of images ever added: the sequence of the newest."""
    label_sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    """Number of labels ever set or replaced."""
    unlabelled: Mapped[int] = mapped_column(default=0)
    labelled: Mapped[int] = mapped_column(default=0)
    val: Mapped[int] = mapped_column(default=0)
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    deletion_sequence: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Number of images ever deleted."""
    unlabelled_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    deleted_by_age: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Number of images that retention has deleted by their age."""
    deleted_by_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")


class Image(Base):
    """An image of the pool, unlabelled until `mask_sha256` is set."""

    __tablename__ = "images"
    __table_args__ = (
        Index("ix_images_unlabelled", "sequence", sqlite_where=text(UNLABELLED)),
        Index("ix_images_labelled", "sequence", sqlite_where=text(LABELLED)),
        Index("ix_images_label_sequence", "label_sequence", sqlite_where=text(LABELLED)),
        Index("ix_images_mask_sha256", "mask_sha256", sqlite_where=text(LABELLED)),
        Index("ix_images_duplicate_of", "duplicate_of", sqlite_where=text(DUPLICATE)),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of the encoded bytes, in hex."""
    media_type: Mapped[str] = mapped_column(String(32))
    width: Mapped[int]
    """Pixels of the upright (EXIF-transposed) view."""
    height: Mapped[int]
    bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    mask_sha256: Mapped[str | None] = mapped_column(String(64))
    split: Mapped[Split | None] = mapped_column(String(16))
    """Split of the label; set together with the mask."""
    labelled_at: Mapped[datetime | None]
    sequence: Mapped[int] = mapped_column(BigInteger, unique=True, index=True, server_default="0")
    """1, 2, ... in the order of arrival; no number is used twice."""
    label_sequence: Mapped[int | None] = mapped_column(BigInteger)
    """`Pool.label_sequence` of the label; set together with the mask."""
    group_name: Mapped[str | None] = mapped_column(String(200))
    """Video, place or patient: images of one group are not independent. Set with the label."""
    duplicate_of: Mapped[str | None] = mapped_column(String(64))
    """The earlier image of which it is a near-duplicate, which is itself none. Set in the background."""


class DeletedImage(Base):
    """A deleted image. Its row stays; its files are gone when `completed_at` is set."""

    __tablename__ = "deleted_images"
    __table_args__ = (
        Index("ix_deleted_images_pending", "sequence", sqlite_where=text("completed_at IS NULL")),
        Index("ix_deleted_images_image_id", "image_id"),
        Index("ix_deleted_images_deletion_sequence", "deletion_sequence"),
    )

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """`Image.sequence`: the same bytes may be added and deleted again."""
    image_id: Mapped[str] = mapped_column(String(64))
    mask_sha256: Mapped[str | None] = mapped_column(String(64))
    deleted_at: Mapped[datetime] = mapped_column(default=utc_now)
    completed_at: Mapped[datetime | None]
    deletion_sequence: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """1, 2, ... in the order of deletion."""
    reason: Mapped[DeletionReason] = mapped_column(String(16), default="requested", server_default="requested")


class Model(DeletionColumns, Base):
    """A model version and its bundle."""

    __tablename__ = "models"

    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    path: Mapped[str] = mapped_column(String(200))
    """Folder of the bundle, relative to the data folder."""
    state: Mapped[ModelState] = mapped_column(String(16))
    error: Mapped[str | None] = mapped_column(Text)
    parent: Mapped[str | None] = mapped_column(String(64))
    run_id: Mapped[str | None] = mapped_column(String(64))
    miou: Mapped[float | None]
    """0..1, as the gate measured it last; before that, from the manifest."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    manifest: Mapped[dict[str, Any] | None]
    """The manifest of a deleted bundle."""


class Activation(Base):
    """An activation. The newest whose model can serve names the version to serve; rows are only added."""

    __tablename__ = "activations"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    version: Mapped[str] = mapped_column(ForeignKey("models.version"))
    at: Mapped[datetime] = mapped_column(default=utc_now)
    reason: Mapped[str] = mapped_column(String(200))
    key_name: Mapped[str | None] = mapped_column(String(64))
    """Name of the key of the person who activated it; NULL: the service did."""


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


class RunEvent(Base):
    """An event of a run. Ids increase."""

    __tablename__ = "run_events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    event: Mapped[dict[str, Any]]


class Release(Base):
    """What becomes of a run's candidate, from the verdict on."""

    __tablename__ = "releases"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), unique=True)
    version: Mapped[str] = mapped_column(ForeignKey("models.version"))
    """The candidate."""
    verdict: Mapped[dict[str, Any]]
    base_version: Mapped[str | None] = mapped_column(String(64))
    """The version that was active when the candidate was judged; NULL: none."""
    judged_against: Mapped[int | None] = mapped_column(ForeignKey("activations.id"))
    """The activation that was in effect then. After a newer one, the service does not act on the verdict."""
    activation_id: Mapped[int | None] = mapped_column(ForeignKey("activations.id"))
    """The newest activation of the candidate by this release."""
    state: Mapped[ReleaseState] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(Text)
    """Why it is in this state."""
    decided_by: Mapped[str | None] = mapped_column(String(64))
    """Name of the key of the person who decided; NULL: the service did."""
    judged_at: Mapped[datetime] = mapped_column(default=utc_now)
    changed_at: Mapped[datetime] = mapped_column(default=utc_now)
    watched: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether the service withdraws the candidate if it is worse in traffic: not if a person overrode the verdict."""
    shadow: Mapped[dict[str, Any] | None]
    """Disagreement with the active model, as the fields of `Disagreement`; NULL: nothing was compared."""
    before_canary: Mapped[dict[str, Any] | None]
    """Traffic of the model before until the canary began, as the fields of `Counts`; NULL: there was no canary."""


class Traffic(Base):
    """Inferences of a version during an activation, of it or of another one."""

    __tablename__ = "traffic"

    activation_id: Mapped[int] = mapped_column(ForeignKey("activations.id"), primary_key=True, autoincrement=False)
    version: Mapped[str] = mapped_column(ForeignKey("models.version"), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    errors: Mapped[int] = mapped_column(BigInteger)
    latency: Mapped[dict[str, Any]]
    """Successful inferences by size of the image, threads, whether it was the first such, and duration, in buckets."""


class WebhookMessage(Base):
    """A message that the webhook has not accepted yet."""

    __tablename__ = "webhook_messages"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """The same in every attempt."""
    payload: Mapped[dict[str, Any]]
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    due_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)


class ScheduleCheck(Base):
    """The last time up to which the cron schedule was answered: one row, or none before the first check."""

    __tablename__ = "schedule_checks"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    schedule: Mapped[str] = mapped_column(String(200))
    """Cron expression and time zone: times before a change of them do not count."""
    checked_at: Mapped[datetime]


class ApiKey(Base):
    """An API key's hash, never the key. Revoked keys keep their row."""

    __tablename__ = "api_keys"
    # The name of a revoked key can be used again.
    __table_args__ = (Index("one_valid_key_a_name", "name", unique=True, sqlite_where=text(VALID_KEY)),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    """The public part of the key."""
    name: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the whole key, in hex."""
    scopes: Mapped[list[Scope]] = mapped_column(JSON)
    rate_per_minute: Mapped[int | None]
    """NULL: the limit of the settings; 0: no limit."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """Accurate to about ten seconds."""


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


def _partial_on_postgresql(metadata: MetaData, connection: Connection, **_: Any) -> None:
    """Make indexes partial on PostgreSQL, too; `postgresql_where` would import that dialect everywhere."""
    if connection.dialect.name == "postgresql":
        for index in (each for table in metadata.tables.values() for each in table.indexes):
            index.dialect_kwargs["postgresql_where"] = index.dialect_kwargs.get("sqlite_where")


event.listen(Base.metadata, "before_create", _partial_on_postgresql)
