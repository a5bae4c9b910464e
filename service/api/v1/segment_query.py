"""What a request wants to be told, and by which model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query
from fastapi.concurrency import run_in_threadpool

from service.api.dependencies import StateOf
from service.models.loading import LoadedModel
from service.segmentation.output.description import MaskForm, OutputOptions


@dataclass(frozen=True, slots=True)
class SegmentQuery:
    """The model that answers, and what of its answer is wanted.

    Attributes:
        loaded: Stays loaded until the request is answered, whatever is activated meanwhile.
        details: By the model's own classes.
    """

    loaded: LoadedModel
    details: OutputOptions


async def read_query(
    state: StateOf,
    *,
    model: Annotated[str | None, Query(description="A version other than the active one")] = None,
    classes: Annotated[
        list[str] | None,
        Query(
            description="The classes that count, by name or id, between commas or in parameters of their own. Others "
            "have the ignore value (as a rule 255) in a PNG, are left out of JSON, and stay unpainted in an overlay",
        ),
    ] = None,
    masks: Annotated[
        MaskForm, Query(description="In JSON: each class as COCO RLE, or all of them as one PNG in base64")
    ] = "rle",
    polygons: Annotated[bool, Query(description="In JSON: the outlines of each class too")] = False,
    tolerance_px: Annotated[
        float,
        Query(ge=0, le=1000, allow_inf_nan=False, description="How far a polygon may leave the outline, in pixels"),
    ] = 1.0,
    confidence: Annotated[
        bool,
        Query(description="The confidence of every pixel too, as a grey PNG (255 = 1.0): in JSON in base64, in a ZIP"),
    ] = False,
) -> SegmentQuery:
    """The query of a segmentation, read before anything of its body is."""
    # A model that has to be loaded first holds no place among those that are served.
    loaded = await run_in_threadpool(state.active_model.lease, model) if model else state.active_model.require()
    details = OutputOptions(
        only=None if classes is None else loaded.class_table.ids(classes),
        masks=masks,
        polygons=polygons,
        tolerance_px=tolerance_px,
        confidence=confidence,
    )
    return SegmentQuery(loaded, details)


QueryOf = Annotated[SegmentQuery, Depends(read_query)]
