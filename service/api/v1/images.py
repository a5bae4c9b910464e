"""`/v1/images`: the image pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.auth import needs
from service.api.dependencies import BINARY, IMAGE_DOCS, StateOf, Upload, upload_docs
from service.api.docs.problem_docs import problem_docs
from service.api.v1.label_out import LabelOut, describe_label
from service.errors import (
    IMAGE_ERRORS,
    UPLOAD_ERRORS,
    BadInput,
    BundleInvalid,
    ClassesNotFound,
    FileLost,
    ImageNotFound,
    MaskInvalid,
    NoModel,
    NotAnalysed,
    Overloaded,
    PoolFull,
)
from service.images.image_store import LabelFilter, Page
from service.images.label_doubts import find_doubt
from service.images.regions.region_label import EXAMPLES, region_schema
from service.segmentation.decode import EXTENSIONS
from service.state import State
from service.storage.storage_faults import reason_of
from service.storage.tables import Image, Split

log = structlog.stdlib.get_logger(__name__)
# Contributors may read an image by its id, the hash of its bytes, but not list what others sent.
router = APIRouter(prefix="/v1/images", tags=["images"], dependencies=[needs("contribute")])


class ImageOut(BaseModel):
    """An image of the pool."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True)

    id: str = Field(description="SHA-256 of its bytes")
    media_type: str
    width: int = Field(description="pixels, in the upright view")
    height: int
    bytes: int
    created_at: datetime
    split: Split | None = Field(description="split of its label; null: not labelled")
    labelled_at: datetime | None
    group: str | None = Field(validation_alias="group_name", description="video, place or patient")
    classes_version: int | None = Field(description="version of the class list of its label; null: not labelled")
    accepted_from: str | None = Field(
        description="the model version whose prediction was accepted as its label; null: the label was drawn, or there "
        "is none"
    )
    duplicate_of: str | None = Field(
        description="id of the earlier image of which it is a near-duplicate, recognised by the worker some time after "
        "the upload; null: none known"
    )


class LabelledOut(ImageOut):
    """An image whose label was stored."""

    label: LabelOut


class DeletedOut(BaseModel):
    """A deleted image."""

    id: str
    models: list[str] = Field(description="versions that were trained with it, oldest first")


class PageOut(BaseModel):
    """A page of images, newest first."""

    images: list[ImageOut]
    next_cursor: str | None = Field(description="pass as ?cursor= for the next page; null: this is the last")
    labelled: int = Field(description="labels for training in the whole pool, with the accepted ones")
    accepted: int = Field(description="predictions that were accepted as labels (POST .../mask:accept)")
    val: int = Field(description="labels for validation in the whole pool")
    unlabelled: int


def keep(state: State, data: bytes, *, decoded: bool = False) -> tuple[Image, bool]:
    """Add an image to the pool and start a run if one is due; return its record, and whether it is new.

    The active model, which defines the value range of runs, must be able to read it, whichever has `decoded` it.
    """
    model = state.active_model.current
    image, new = state.images.add(data, value_range=model.value_range if model else None, decoded=decoded)
    count_kept(state, [image] if new else [])
    return image, new


def count_kept(state: State, images: Sequence[Image]) -> None:
    """Count stored images, and start a run if one is due."""
    if not images:
        return
    state.metrics.images_added.inc(len(images))
    _start_if_due(lambda: state.retrain_policy.consider_image(max(image.sequence for image in images)))


def count_labelled(state: State) -> None:
    """Start a run if one is due: the pool may have had enough images for it, but too few labels."""
    _start_if_due(state.retrain_policy.consider)


def _start_if_due(consider: Callable[[], object]) -> None:
    """Start a run if one is due; a fault is logged, since the image or label is stored and must be acknowledged."""
    try:
        consider()
    except Exception as error:
        # The worker's sweep looks again.
        log.warning("cannot look whether a run is due", reason=reason_of(error))


ADDED_DOCS: dict[int | str, dict[str, Any]] = {200: {"model": ImageOut, "description": "The pool has this image"}}
CONTENT_DOCS: dict[int | str, dict[str, Any]] = {200: {"content": dict.fromkeys(EXTENSIONS, BINARY)}}
GROUP = Query(
    max_length=200,
    description="The video, place or patient of the image: images of a group are not independent when models are "
    "compared. It does not choose the split",
)
LABEL_DOCS = upload_docs("image/png")
LABEL_DOCS["requestBody"]["content"]["application/json"] = {"schema": region_schema(), "examples": EXAMPLES}
VERSION_HEADER = {"description": "version of the class list of the ids", "schema": {"type": "string"}}
MASK_DOCS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": BINARY}, "headers": {"X-Classes-Version": VERSION_HEADER}}
}


@router.post(
    "",
    status_code=201,
    openapi_extra=IMAGE_DOCS,
    responses=ADDED_DOCS | problem_docs(*UPLOAD_ERRORS, *IMAGE_ERRORS, PoolFull),
)
def add_image(state: StateOf, data: Upload, response: Response) -> ImageOut:
    """Add an image to the pool. Adding the same bytes again returns the same image."""
    image, new = keep(state, data)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/images/{image.id}"
    return ImageOut.model_validate(image)


@router.get(
    "", dependencies=[needs("train")], responses=problem_docs(BadInput, ImageNotFound, NotAnalysed, NoModel, Overloaded)
)
def list_images(
    state: StateOf,
    *,
    which: Annotated[LabelFilter, Query()] = "all",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
    order: Annotated[
        Literal["newest", "uncertain"],
        Query(
            description="`uncertain`: unlabelled images in the order in which labels teach the active model most, "
            "without near-duplicates"
        ),
    ] = "newest",
    similar_to: Annotated[
        str | None, Query(description="List the images most similar to the one with this id, the nearest first")
    ] = None,
) -> PageOut:
    """List the pool, newest first. `order=uncertain` and `similar_to` list one page, of analysed images."""
    if order == "newest" and similar_to is None:
        page = state.images.page(which=which, limit=limit, cursor=cursor)
    elif cursor is not None or which != "all" or (order == "uncertain" and similar_to is not None):
        raise BadInput("`order=uncertain` and `similar_to` go with `limit` alone: leave the other parameters out.")
    elif similar_to is not None:
        page = Page(state.image_orders.similar_to(similar_to, limit), None)
    else:
        page = Page(state.image_orders.uncertain(limit), None)
    images = [ImageOut.model_validate(image) for image in page.images]
    return PageOut(images=images, next_cursor=page.next_cursor, **asdict(state.images.counts()))


@router.get("/{image_id}", responses=problem_docs(ImageNotFound))
def get_image(state: StateOf, image_id: str) -> ImageOut:
    """Get the record of an image."""
    return ImageOut.model_validate(state.images.get(image_id))


@router.get(
    "/{image_id}/content", response_class=Response, responses=CONTENT_DOCS | problem_docs(ImageNotFound, FileLost)
)
def get_content(state: StateOf, image_id: str) -> Response:
    """Get the bytes of an image, as uploaded."""
    return Response(state.images.read(image_id), media_type=state.images.get(image_id).media_type)


@router.delete("/{image_id}", responses=problem_docs(ImageNotFound))
def delete_image(state: StateOf, image_id: str) -> DeletedOut:
    """Delete an image, its masks, and pictures of it in reports; lists the models that were trained with it.

    An active run keeps its copy until it ends.
    """
    deleted = state.images.delete(image_id)
    return DeletedOut(id=image_id, models=list(state.runs.models_with_image(deleted.sequence)))


@router.put(
    "/{image_id}/mask",
    openapi_extra=LABEL_DOCS,
    responses=problem_docs(*UPLOAD_ERRORS, ImageNotFound, MaskInvalid, NoModel, BundleInvalid, ClassesNotFound),
)
def put_mask(
    state: StateOf,
    image_id: str,
    data: Upload,
    *,
    split: Annotated[
        Split | None, Query(description="Default: every fifth label goes to `val`, the others to `labelled`")
    ] = None,
    partial: Annotated[
        bool,
        Query(description="Accept a PNG that looks black and white, as of 0 and 255 only, of which 255 is no label"),
    ] = False,
    group: Annotated[str | None, GROUP] = None,
    classes_version: Annotated[
        int | None,
        Query(
            ge=1,
            le=2**31 - 1,
            description="Version of the class list of the ids or names in the label. Default: the present one",
        ),
    ] = None,
) -> LabelledOut:
    """Label an image with a one-channel PNG of class ids, of the size of the upright image, or with regions as JSON.

    The ids are those of the class list (GET /v1/classes), which may differ from those in the masks of a model. Regions
    are polygons or run lengths, as in COCO, with names of the list. The answer has the pixels of each class.
    """
    history = state.models.classes.history()
    number = history.present.version if classes_version is None else classes_version
    classes = history.existing(number)
    image = state.images.put_mask(image_id, data, classes=classes, split=split, group=group, partial=partial)
    count_labelled(state)
    label = describe_label(image, classes)
    ids = [each.id for each in label.classes]
    label.doubt = find_doubt(data, ids, classes, unlabelled=label.unlabelled_pixels)
    return LabelledOut(**ImageOut.model_validate(image).model_dump(), label=label)


@router.get(
    "/{image_id}/mask",
    response_class=Response,
    responses=MASK_DOCS | problem_docs(ImageNotFound, FileLost, NoModel, BundleInvalid),
)
def get_mask(state: StateOf, image_id: str) -> Response:
    """Get the mask as a grey PNG of ids of the present class list.

    Pixels of classes that this list has no more are ignored.
    """
    history = state.models.classes.history()
    headers = {"X-Classes-Version": str(history.present.version)}
    return Response(state.images.read_mask(image_id, history), media_type="image/png", headers=headers)
