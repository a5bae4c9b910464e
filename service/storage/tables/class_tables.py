"""Tables of the service's class lists, and of the labelled pixels by class."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables.image_tables import Split
from service.storage.tables.table_base import Base, utc_now


class ClassListRow(Base):
    """A version of the class list. Rows are only added; the newest is the present list."""

    __tablename__ = "class_lists"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    key_name: Mapped[str | None] = mapped_column(String(64))
    """Name of the key of the person who wrote it; NULL: the service did."""
    model: Mapped[str | None] = mapped_column(String(64))
    """The model version from whose classes the first list was taken; NULL: a person wrote it."""
    ignore_index: Mapped[int | None]
    """Id of pixels without a label."""
    classes: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    """`identity`, `name` and `color` of each class, by id. NULL in a first list of a migration: read from `model`."""
    changes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """How it came from the version before, as the fields of `Changes`."""
    merged: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Identity of a class that became part of another: the identity of that one."""


class LabelCount(Base):
    """Number of labels that show a class, and of its pixels. Changed in the transaction of each label."""

    __tablename__ = "label_counts"

    classes_version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """`Image.classes_version` of the labels."""
    split: Mapped[Split] = mapped_column(String(16), primary_key=True)
    class_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Id in that list."""
    labels: Mapped[int]
    pixels: Mapped[int] = mapped_column(BigInteger)
