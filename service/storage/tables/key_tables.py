"""Table of API keys."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from service.scopes import Scope
from service.storage.tables.table_base import Base, utc_now

VALID_KEY = "revoked_at IS NULL"


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
