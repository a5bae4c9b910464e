"""Query parameters of segmentation: the model, and what the response contains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Query
from fastapi.concurrency import run_in_threadpool

from service.api.dependencies import StateOf
from service.models.loading import LoadedModel
from service.segmentation.admission.request_context import RequestContext
from service.segmentation.output.description import MaskForm, OutputOptions
from service.segmentation.pipeline import Result
from service.state import State


@dataclass(frozen=True, slots=True)
class SegmentQuery:
    """The model, loaded until the request is answered even if another is activated, and what the response contains."""

    model: LoadedModel
    options: OutputOptions
    version_requested: bool = False
    """Whether the client chose the version."""


def with_canary(query: SegmentQuery, state: State, data: bytes, context: RequestContext) -> SegmentQuery:
    """Replace the active model by the candidate of a canary release, if the encoded image is in its share.

    Both have the same classes: the gate rejects others.
    """
    canary = None if query.version_requested else state.candidates.canary(query.model, data)
    if canary is None:
        return query
    context.set_model(canary.version)
    return replace(query, model=canary)


def offer_to_shadow(query: SegmentQuery, state: State, result: Result) -> None:
    """Let the candidate of a shadow release segment the image again, if it is in its share and there is time."""
    if not query.version_requested:
        state.shadow.offer(query.model, result.image.image_HW3, result.prediction.mask_HW)


async def read_query(
    state: StateOf,
    *,
    model: Annotated[str | None, Query(description="Model version; default: the active one")] = None,
    classes: Annotated[
        list[str] | None,
        Query(
            description="Classes to include, by name or id, separated by commas or in repeated parameters. The others "
            "get the ignore value (usually 255) in a PNG, are left out of JSON, and stay unpainted in an overlay"
        ),
    ] = None,
    masks: Annotated[
        MaskForm, Query(description="Masks in JSON: each class as COCO RLE, or all as one PNG in base64")
    ] = "rle",
    polygons: Annotated[bool, Query(description="Include the outlines of each class in JSON")] = False,
    tolerance_px: Annotated[
        float,
        Query(
            ge=0, le=1000, allow_inf_nan=False, description="Largest distance of a polygon from the outline, in pixels"
        ),
    ] = 1.0,
    confidence: Annotated[
        bool,
        Query(
            description="Include the confidence of every pixel as a grey PNG (255 = 1.0), in JSON (base64) or in a ZIP"
        ),
    ] = False,
) -> SegmentQuery:
    """Read the query parameters, before the body."""
    # Before admission: loading a version takes seconds.
    loaded = await run_in_threadpool(state.active_model.lease, model) if model else state.active_model.require()
    options = OutputOptions(
        classes=None if classes is None else loaded.class_table.ids(classes),
        masks=masks,
        polygons=polygons,
        tolerance_px=tolerance_px,
        confidence=confidence,
    )
    return SegmentQuery(loaded, options, version_requested=model is not None)


QueryOf = Annotated[SegmentQuery, Depends(read_query)]
