"""Database tables of the operating time, by which retention counts ages. A change here needs a migration."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables import Base, utc_now


class OperatingTime(Base):
    """The time during which workers ran: one row. See `service.retention.operating_clock`."""

    __tablename__ = "operating_time"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    seconds: Mapped[float] = mapped_column(default=0.0)
    checked_at: Mapped[datetime] = mapped_column(default=utc_now)
    """When a worker last added to it."""


class OperatingHour(Base):
    """An hour of the operating time. Hours in which no worker looked have no row."""

    __tablename__ = "operating_hours"

    hour: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    image_sequence: Mapped[int] = mapped_column(BigInteger)
    """`Pool.image_sequence` when a worker first looked in this hour: images up to it are older."""
