"""`POST /v1/images/ID/mask:accept`: make a model's prediction the label of an image."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import problem_docs
from service.api.request_priority import PriorityOf
from service.api.v1.images import GROUP, ImageOut, LabelledOut, count_labelled
from service.api.v1.label_out import describe_label
from service.errors import (
    ADMISSION_ERRORS,
    IMAGE_ERRORS,
    MODEL_ERRORS,
    BundleInvalid,
    FileLost,
    ImageNotFound,
    LabelExists,
    LabelNotDrawn,
    MaskInvalid,
)
from service.images.accepted_labels import check_acceptable, label_of
from service.state import State
from service.storage.tables import Split

router = APIRouter(prefix="/v1/images", tags=["images"], dependencies=[needs("contribute", "predict")])


class AcceptedOut(LabelledOut):
    """An image whose label is a prediction."""

    below_confidence: int = Field(description="pixels that are ignored, since the model is less confident")
    without_class: int = Field(description="pixels that are ignored, since the class list lacks their class")


@router.post(
    "/{image_id}/mask:accept",
    responses=problem_docs(
        *IMAGE_ERRORS,
        *ADMISSION_ERRORS,
        *MODEL_ERRORS,
        ImageNotFound,
        FileLost,
        BundleInvalid,
        LabelExists,
        LabelNotDrawn,
        MaskInvalid,
    ),
)
async def accept_mask(
    request: Request,
    state: StateOf,
    image_id: str,
    priority: PriorityOf,
    *,
    model: Annotated[
        str | None,
        Query(description="Model version, that of the mask you looked at (`X-Model-Version`); default: the active one"),
    ] = None,
    min_confidence: Annotated[
        float, Query(ge=0, le=1, allow_inf_nan=False, description="Ignore pixels of which the model is less confident")
    ] = 0.0,
    split: Annotated[
        Split | None, Query(description="Default: `labelled`. `val` is refused: a model must not be judged by itself")
    ] = None,
    group: Annotated[str | None, GROUP] = None,
    replace: Annotated[bool, Query(description="Replace the label if a person has drawn one")] = False,
) -> AcceptedOut:
    """Make the prediction of a model the label of an image, once a person has looked at it (POST /v1/segment).

    The label records the version (`accepted_from`). It trains, and never validates: labels in `val` are drawn.
    """
    loaded = await run_in_threadpool(state.active_model.lease, model) if model else state.active_model.require()
    async with state.pipeline.admission(
        urgency=priority.urgency, timeout_s=priority.timeout_s, model=loaded.version
    ) as context:
        data = await run_in_threadpool(_read, state, image_id, split, replace=replace)
        result = await state.pipeline.segment(data, loaded.engine, context, request.is_disconnected, loaded.value_range)

    def store() -> AcceptedOut:
        history = state.models.classes.history()
        listed = state.models.classes.ids_in(loaded.bundle.manifest, history.present)
        label = label_of(result.prediction, listed, history.present, min_confidence)
        image = state.images.put_label(
            image_id,
            label.ids_HW,
            classes=history.present,
            split=split,
            group=group,
            accepted_from=loaded.version,
            replace=replace,
        )
        return AcceptedOut(
            **ImageOut.model_validate(image).model_dump(),
            label=describe_label(image, history.present),
            below_confidence=label.below_confidence,
            without_class=label.without_class,
        )

    stored = await run_in_threadpool(store)
    await run_in_threadpool(count_labelled, state)
    return stored


def _read(state: State, image_id: str, split: Split | None, *, replace: bool) -> bytes:
    """Read an image, unless the prediction could not become its label anyway."""
    image = state.images.get(image_id)
    check_acceptable(image, split or image.split, replace=replace)
    return state.images.read(image_id)
