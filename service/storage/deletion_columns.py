"""Columns of what is deleted when it is old or large, and of its deletion: the row stays, its files go."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

DeletionReason = Literal["requested", "age", "bytes"]


class DeletionColumns:
    """Columns of models and runs. A change here needs a migration of both tables."""

    bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Size of its files; NULL: not measured yet."""
    unused_since: Mapped[int | None] = mapped_column(BigInteger)
    """`OperatingHour.hour` in which it was last in use, or first seen: its age counts from there."""
    deleted_at: Mapped[datetime | None]
    """Time from which its files are not used any more."""
    deletion_reason: Mapped[DeletionReason | None] = mapped_column(String(16))
    deleted_by: Mapped[str | None] = mapped_column(String(64))
    """Name of the key of the person who requested it; NULL: the service did."""
    files_deleted_at: Mapped[datetime | None]
    """Time when its files were gone."""
