"""`/v1/images`: the pool. Images come in without labels; some get a mask."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from service.api.auth import needs
from service.api.dependencies import BINARY, IMAGE_DOCS, UPLOAD_ERRORS, StateOf, Upload, upload_docs
from service.api.docs.problem_docs import problem_docs
from service.errors import (
    BadInput,
    FileLost,
    ImageInUse,
    ImageNotFound,
    ImageTooLarge,
    ImageUnreadable,
    ImageUnsupported,
    MaskInvalid,
    NoModel,
)
from service.images.image_store import Which
from service.segmentation.decode import EXTENSIONS
from service.state import State
from service.storage.tables import Image, Split

# An image by its id is for everybody who contributes: the id is the hash of the bytes, so it is known to those who have
# them. The list would show what others sent.
router = APIRouter(prefix="/v1/images", tags=["images"], dependencies=[needs("contribute")])


class ImageOut(BaseModel):
    """An image of the pool."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="sha256 of its bytes")
    media_type: str
    width: int = Field(description="pixels, in the upright view")
    height: int
    bytes: int
    created_at: datetime
    split: Split | None = Field(description="where its label is used; null: it has none")
    labelled_at: datetime | None


class PageOut(BaseModel):
    """Some images, newest first."""

    images: list[ImageOut]
    next_cursor: str | None = Field(description="ask again with ?cursor= for those after; null: there are none")
    labelled: int = Field(description="labels for training, in the whole pool")
    val: int = Field(description="labels for judging, in the whole pool")
    unlabelled: int


def keep(state: State, data: bytes, *, decoded: bool = False) -> tuple[Image, bool]:
    """Add an image to the pool, and let the policy look whether a run is due. Whether it is new comes second."""
    image, new = state.images.add(data, decoded=decoded)
    if new:
        state.metrics.images_added.inc()
        state.retrain_policy.consider()
    return image, new


ADDED_DOCS: dict[int | str, dict[str, Any]] = {200: {"model": ImageOut, "description": "It was here already"}}
CONTENT_DOCS: dict[int | str, dict[str, Any]] = {200: {"content": dict.fromkeys(EXTENSIONS, BINARY)}}
MASK_DOCS: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": BINARY}}}


@router.post(
    "",
    status_code=201,
    openapi_extra=IMAGE_DOCS,
    responses=ADDED_DOCS | problem_docs(*UPLOAD_ERRORS, ImageUnreadable, ImageUnsupported, ImageTooLarge),
)
def add_image(state: StateOf, data: Upload, response: Response) -> ImageOut:
    """Add an image to the pool; the same bytes twice are one image."""
    image, new = keep(state, data)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/images/{image.id}"
    return ImageOut.model_validate(image)


@router.get("", dependencies=[needs("train")], responses=problem_docs(BadInput))
def list_images(
    state: StateOf,
    which: Annotated[Which, Query()] = "all",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> PageOut:
    """List the pool, newest first."""
    page, counts = state.images.page(which=which, limit=limit, cursor=cursor), state.images.counts()
    return PageOut(
        images=[ImageOut.model_validate(image) for image in page.images],
        next_cursor=page.next_cursor,
        labelled=counts.labelled,
        val=counts.val,
        unlabelled=counts.unlabelled,
    )


@router.get("/{image_id}", responses=problem_docs(ImageNotFound))
def get_image(state: StateOf, image_id: str) -> ImageOut:
    """One image's record."""
    return ImageOut.model_validate(state.images.get(image_id))


@router.get(
    "/{image_id}/content",
    response_class=FileResponse,
    responses=CONTENT_DOCS | problem_docs(ImageNotFound, FileLost),
)
def get_content(state: StateOf, image_id: str) -> FileResponse:
    """The image itself, byte for byte as it came."""
    return _file(state.images.path(image_id), state.images.get(image_id).media_type)


@router.delete("/{image_id}", status_code=204, responses=problem_docs(ImageNotFound, ImageInUse))
def delete_image(state: StateOf, image_id: str) -> None:
    """Forget an image and its mask; refused while a run uses it."""
    state.images.delete(image_id)


@router.put(
    "/{image_id}/mask",
    openapi_extra=upload_docs("image/png"),
    responses=problem_docs(*UPLOAD_ERRORS, ImageNotFound, MaskInvalid, NoModel),
)
def put_mask(
    state: StateOf,
    image_id: str,
    data: Upload,
    split: Annotated[Split | None, Query(description="Default: every fifth label judges, the others teach")] = None,
) -> ImageOut:
    """Label an image: a one-channel PNG of class ids, of the upright image's size."""
    manifest = state.active_model.require().bundle.manifest
    image = state.images.put_mask(
        image_id, data, classes=len(manifest.classes), ignore_index=manifest.ignore_index, split=split
    )
    # The images may have been enough for a run for a while, and the labels too few.
    state.retrain_policy.consider()
    return ImageOut.model_validate(image)


@router.get(
    "/{image_id}/mask", response_class=FileResponse, responses=MASK_DOCS | problem_docs(ImageNotFound, FileLost)
)
def get_mask(state: StateOf, image_id: str) -> FileResponse:
    """The mask: a grey PNG of class ids."""
    return _file(state.images.mask_path(image_id), "image/png")


def _file(path: Path, media_type: str) -> FileResponse:
    # A browser must not take what a client uploaded for a page of ours.
    return FileResponse(path, media_type=media_type, headers={"X-Content-Type-Options": "nosniff"})
