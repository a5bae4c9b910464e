"""Tables of the image pool."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import JSON, BigInteger, CheckConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.deletion_columns import DeletionReason
from service.storage.tables.table_base import Base, utc_now

Split = Literal["labelled", "val"]
Role = Literal["labelled", "val", "unlabelled"]

UNLABELLED = "mask_sha256 IS NULL"
LABELLED = "mask_sha256 IS NOT NULL"
UNCOUNTED = "mask_sha256 IS NOT NULL AND class_pixels IS NULL"
DUPLICATE = "duplicate_of IS NOT NULL"


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
    accepted: Mapped[int] = mapped_column(default=0, server_default="0")
    """Number of labels in `labelled` that a model made and a person accepted."""


class Image(Base):
    """An image of the pool, unlabelled until `mask_sha256` is set."""

    __tablename__ = "images"
    __table_args__ = (
        Index("ix_images_unlabelled", "sequence", sqlite_where=text(UNLABELLED)),
        Index("ix_images_labelled", "sequence", sqlite_where=text(LABELLED)),
        Index("ix_images_label_sequence", "label_sequence", sqlite_where=text(LABELLED)),
        Index("ix_images_mask_sha256", "mask_sha256", sqlite_where=text(LABELLED)),
        Index("ix_images_duplicate_of", "duplicate_of", sqlite_where=text(DUPLICATE)),
        Index("ix_images_uncounted", "sequence", sqlite_where=text(UNCOUNTED)),
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
    classes_version: Mapped[int | None]
    """Version of the class list of the mask's ids; set together with the mask."""
    class_pixels: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Labelled pixels by class id, without ignored ones. NULL: not counted yet, or not labelled."""
    accepted_from: Mapped[str | None] = mapped_column(String(64))
    """The model version whose prediction a person accepted as the label. NULL: it was drawn, or there is none."""


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
