"""`/v1/models/VERSION/provenance`: from what a model was made."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import problem_docs
from service.api.v1.runs import RunOut
from service.errors import BundleInvalid, ModelNotFound, StorageFailed
from service.runs.history.provenance import describe_provenance
from service.storage.tables import Split

# It names images that others sent.
router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[needs("train")])

IMAGE_ID = r"^[0-9a-f]{0,64}$"


class AncestorOut(BaseModel):
    """A model before this one."""

    model_config = ConfigDict(from_attributes=True)

    version: str
    run_id: str | None = Field(description="the run that trained it; null: none of this service")


class UsedLabelOut(BaseModel):
    """A label of the snapshot. Near-duplicates of validation images were not used for training."""

    model_config = ConfigDict(from_attributes=True)

    image_id: str
    mask_sha256: str | None = Field(description="null in runs of versions that did not record it")
    split: Split
    group: str | None = Field(
        description="group of the image, or the id of its cluster of near-duplicates, its own if it is alone"
    )
    deleted: bool = Field(description="whether the image was deleted since")
    accepted_from: str | None = Field(
        description="the model version whose prediction was accepted as the label; null: the label was drawn"
    )


class SnapshotOut(BaseModel):
    """Numbers of images in the snapshot of the run."""

    model_config = ConfigDict(from_attributes=True)

    image_sequence: int | None = Field(description="number of the newest image in it")
    label_sequence: int | None = Field(description="number of the newest label in it")
    unlabelled: int | None = Field(description="null in runs of versions that did not record it")
    labelled: int
    val: int
    deleted: int = Field(description="images of it that were deleted since, labelled or not")


class ProvenanceOut(BaseModel):
    """From what a model was made."""

    model_config = ConfigDict(from_attributes=True)

    version: str
    ancestors: list[AncestorOut] = Field(description="the version from which training started, the one before, ...")
    run: RunOut | None = Field(
        description="the run that trained it, with the environment of its trainer and the verdict (`report`); null: "
        "none of this service"
    )
    snapshot: SnapshotOut | None
    labels: list[UsedLabelOut] = Field(description="a page of the labels, by image id")
    next_cursor: str | None = Field(description="pass as ?cursor= for the next page of labels; null: this is the last")
    bundle: dict[str, Any] = Field(description="what its bundle knows: resolved recipe with the seed, code version")


@router.get("/{version}/provenance", responses=problem_docs(ModelNotFound, BundleInvalid, StorageFailed))
def get_provenance(
    state: StateOf,
    version: str,
    limit: Annotated[int, Query(ge=1, le=10_000, description="maximum number of labels")] = 1000,
    cursor: Annotated[str, Query(pattern=IMAGE_ID)] = "",
) -> ProvenanceOut:
    """Tell from which images, labels, recipe, code and model a version was made, and how it was judged."""
    found = describe_provenance(state.database, state.models, version, limit=limit, after=cursor)
    return ProvenanceOut.model_validate(found)
