"""Database tables, the source of truth about images, models and runs; files contain only the data.

All times are UTC and timezone-aware. A change here needs a migration.
"""

from __future__ import annotations

from service.storage.tables.class_tables import ClassListRow, LabelCount
from service.storage.tables.image_tables import (
    DUPLICATE,
    LABELLED,
    UNCOUNTED,
    UNLABELLED,
    DeletedImage,
    Image,
    Pool,
    Role,
    Split,
)
from service.storage.tables.key_tables import VALID_KEY, ApiKey
from service.storage.tables.model_tables import UNSERVABLE, Activation, Model, ModelState
from service.storage.tables.release_tables import OPEN, ROLLED_OUT, Release, ReleaseState, Traffic, WebhookMessage
from service.storage.tables.run_tables import (
    ACTIVE,
    ACTIVE_RUN,
    Run,
    RunEvent,
    RunLabel,
    RunReason,
    RunStatus,
    ScheduleCheck,
    Worker,
)
from service.storage.tables.table_base import Base, UtcDateTime, utc_now

__all__ = [
    "ACTIVE",
    "ACTIVE_RUN",
    "DUPLICATE",
    "LABELLED",
    "OPEN",
    "ROLLED_OUT",
    "UNCOUNTED",
    "UNLABELLED",
    "UNSERVABLE",
    "VALID_KEY",
    "Activation",
    "ApiKey",
    "Base",
    "ClassListRow",
    "DeletedImage",
    "Image",
    "LabelCount",
    "Model",
    "ModelState",
    "Pool",
    "Release",
    "ReleaseState",
    "Role",
    "Run",
    "RunEvent",
    "RunLabel",
    "RunReason",
    "RunStatus",
    "ScheduleCheck",
    "Split",
    "Traffic",
    "UtcDateTime",
    "WebhookMessage",
    "Worker",
    "utc_now",
]
