"""`/v1/retention`: what is stored, and what would be deleted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import problem_docs
from service.errors import StorageFailed
from service.retention.expiry import Expired, Limit, Stored, limits_of
from service.retention.retention_sweep import Preview
from service.storage.deletion_columns import DeletionReason

router = APIRouter(prefix="/v1/retention", tags=["retention"], dependencies=[needs("train")])

# SQL's BIGINT, and more days than anyone keeps anything.
LARGEST_BYTES, LARGEST_DAYS = 2**63 - 1, 1_000_000
Days = Annotated[float | None, Field(ge=0, le=LARGEST_DAYS)]
Bytes = Annotated[int | None, Field(ge=0, le=LARGEST_BYTES)]


class LimitsIn(BaseModel):
    """Limits instead of those of the settings; 0: none."""

    model_config = ConfigDict(extra="forbid")

    images_days: Days = None
    images_bytes: Bytes = None
    runs_days: Days = None
    runs_bytes: Bytes = None
    models_days: Days = None
    models_bytes: Bytes = None


class LimitOut(BaseModel):
    """Limits; 0: none."""

    model_config = ConfigDict(from_attributes=True)

    days: float
    bytes: int


class ImagesOut(BaseModel):
    """Unlabelled images. Labelled ones are never deleted by retention."""

    limit: LimitOut
    unlabelled: int
    unlabelled_bytes: int
    all_bytes: int = Field(description="with the labelled images")
    deleted_by_age: int = Field(description="images that retention has deleted so far")
    deleted_by_bytes: int
    delete_by_age: int = Field(description="images that would be deleted now because of their age")
    delete_by_bytes: int = Field(description="further images that would be deleted now because of the total size")
    delete_bytes: int = Field(description="size of both")


class ExpiredOut(BaseModel):
    """What would be deleted."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="version of a model, or id of a run")
    bytes: int
    reason: DeletionReason


class KeptOut(BaseModel):
    """What is kept whatever its age and size."""

    name: str
    bytes: int
    reason: str


class FilesOut(BaseModel):
    """Models, or the files of runs."""

    limit: LimitOut
    count: int
    bytes: int
    delete: list[ExpiredOut] = Field(description="what would be deleted now, the longest unused first")
    delete_bytes: int
    in_use: list[KeptOut]


class RetentionOut(BaseModel):
    """What is stored, and what would be deleted now."""

    images: ImagesOut
    runs: FilesOut
    models: FilesOut


@router.get("", responses=problem_docs(StorageFailed))
def get_retention(state: StateOf, limits: Annotated[LimitsIn, Query()]) -> RetentionOut:
    """Tell what is stored, and what would be deleted now with the limits of the settings, or with others."""
    changes = {f"keep_{name}": value for name, value in limits.model_dump(exclude_none=True).items()}
    used = limits_of(state.settings.model_copy(update=changes))
    found = state.retention.preview(used)
    return RetentionOut(
        images=_images(found, used.images),
        runs=_files(found.stored_runs, found.runs, used.runs),
        models=_files(found.stored_models, found.models, used.models),
    )


def _images(found: Preview, limit: Limit) -> ImagesOut:
    pool, expired = found.pool, found.images
    return ImagesOut(
        limit=LimitOut.model_validate(limit),
        unlabelled=pool.unlabelled,
        unlabelled_bytes=pool.unlabelled_bytes,
        all_bytes=pool.bytes,
        deleted_by_age=pool.deleted_by_age,
        deleted_by_bytes=pool.deleted_by_bytes,
        delete_by_age=expired.by_age,
        delete_by_bytes=expired.by_bytes,
        delete_bytes=expired.bytes,
    )


def _files(stored: list[Stored], expired: list[Expired], limit: Limit) -> FilesOut:
    return FilesOut(
        limit=LimitOut.model_validate(limit),
        count=len(stored),
        bytes=sum(each.bytes for each in stored),
        delete=[ExpiredOut.model_validate(each) for each in expired],
        delete_bytes=sum(each.bytes for each in expired),
        in_use=[KeptOut(name=each.name, bytes=each.bytes, reason=each.in_use) for each in stored if each.in_use],
    )
