"""Tables of model versions and of which one serves."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.deletion_columns import DeletionColumns
from service.storage.tables.table_base import Base, utc_now

ModelState = Literal["candidate", "ready", "rejected", "failed", "withdrawn", "deleted"]

UNSERVABLE: tuple[ModelState, ...] = ("failed", "withdrawn", "deleted")


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
    classes_version: Mapped[int | None]
    """Version of the class list by whose names its classes are known; NULL: the present one."""


class Activation(Base):
    """An activation. The newest whose model can serve names the version to serve; rows are only added."""

    __tablename__ = "activations"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    version: Mapped[str] = mapped_column(ForeignKey("models.version"))
    at: Mapped[datetime] = mapped_column(default=utc_now)
    reason: Mapped[str] = mapped_column(String(200))
    key_name: Mapped[str | None] = mapped_column(String(64))
    """Name of the key of the person who activated it; NULL: the service did."""
