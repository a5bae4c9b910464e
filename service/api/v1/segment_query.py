"""Query parameters of segmentation: the model, and what the response contains."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Query
from fastapi.concurrency import run_in_threadpool

from service.api.dependencies import StateOf
from service.models.loading import LoadedModel
from service.releases.rollout.canary_fallback import answer
from service.segmentation.admission.request_context import RequestContext
from service.segmentation.output.description import MaskForm, OutputOptions
from service.segmentation.pipeline import DisconnectCheck, Result
from service.state import State


@dataclass(frozen=True, slots=True)
class SegmentQuery:
    """The model, loaded until the request is answered even if another is activated, and what the response contains."""

    model: LoadedModel
    options: OutputOptions
    version_requested: bool = False
    """Whether the client chose the version."""


async def segment_image(
    query: SegmentQuery, state: State, data: bytes, context: RequestContext, client_disconnected: DisconnectCheck
) -> tuple[SegmentQuery, Result]:
    """Segment an encoded image; return the query with the model that did, and the result. Raises as the pipeline.

    Unless the client chose a version, the candidate of a release gets its share: that of a canary answers (it has the
    same classes, since the gate rejects others), and that of a shadow segments the image again later.
    """

    def attempt(model: LoadedModel) -> Awaitable[Result]:
        context.set_model(model.version)
        return state.pipeline.segment(data, model.engine, context, client_disconnected, model.value_range)

    canary = None if query.version_requested else state.candidates.canary(query.model, data)
    model, result = await answer(attempt, canary, query.model)
    if not query.version_requested:
        state.shadow.offer(model, result.image.image_HW3, result.prediction.mask_HW)
    return replace(query, model=model), result


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
