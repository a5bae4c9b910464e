"""Tables of releases, of the traffic by which they are watched, and of messages to the webhook."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, ForeignKey, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables.table_base import Base, utc_now

ReleaseState = Literal["judged", "asked", "shadow", "canary", "serving", "declined", "superseded", "withdrawn"]

OPEN: tuple[ReleaseState, ...] = ("judged", "asked", "shadow", "canary")
"""States of a release that is not decided."""
ROLLED_OUT: tuple[ReleaseState, ...] = ("shadow", "canary")
"""States of a release whose candidate gets a share of the traffic."""


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
