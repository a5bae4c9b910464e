"""`POST /v1/segment`: an image in, its mask out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.auth import needs, require
from service.api.dependencies import IMAGE_DOCS, StateOf, read_image
from service.api.docs.problem_docs import problem_docs
from service.api.request_priority import PriorityOf
from service.api.v1.accept_header import negotiate
from service.api.v1.images import keep
from service.api.v1.load_shedding import LoadSheddingRoute
from service.api.v1.render import ANSWER_DOCS, RenderedResult, Rendering, offers
from service.api.v1.segment_query import QueryOf
from service.errors import (
    BadInput,
    BodyTooSlow,
    ClassUnknown,
    DeadlinePassed,
    ImageTooLarge,
    ImageUnreadable,
    ImageUnsupported,
    ModelLoading,
    ModelNotFound,
    ModelNotServable,
    NoModel,
    NotAcceptable,
    OutOfMemory,
    Overloaded,
    Unavailable,
)

router = APIRouter(prefix="/v1", tags=["segment"], dependencies=[needs("predict")], route_class=LoadSheddingRoute)

REFUSALS = (
    *(BadInput, ImageUnreadable, ModelNotFound, NotAcceptable, BodyTooSlow, ModelNotServable, ImageTooLarge),
    *(ImageUnsupported, ClassUnknown, Overloaded, OutOfMemory, NoModel, ModelLoading, Unavailable, DeadlinePassed),
)


@router.post(
    "/segment",
    response_class=Response,
    responses={**ANSWER_DOCS, **problem_docs(*REFUSALS)},
    openapi_extra=IMAGE_DOCS,
)
async def segment(
    request: Request,
    *,
    state: StateOf,
    asked: QueryOf,
    wish: PriorityOf,
    legend: Annotated[
        bool, Query(description="In an overlay: the classes' names and colours under the picture")
    ] = True,
    contribute: Annotated[bool, Query(description="Keep the image in the pool, to learn from it")] = False,
) -> Response:
    """Segment one image."""
    if contribute:
        require(request, "contribute")
    media_type, loaded = negotiate(request.headers.get("accept"), offers(asked.details)), asked.loaded
    async with state.pipeline.admission(urgency=wish.urgency, timeout_s=wish.timeout_s, model=loaded.version) as visit:
        # Only now: bodies of those that are not admitted stay with the client.
        data = await read_image(request, state.settings.receive_timeout_s)
        answer = await state.pipeline.segment(data, loaded.engine, visit, request.is_disconnected)

        def render() -> RenderedResult:
            orientation = answer.image.header.orientation
            return Rendering(answer=answer, asked=asked, orientation=orientation, key=legend).render(media_type)

        rendered = await state.pipeline.encode(render, visit)
    headers = {
        "X-Model-Version": loaded.version,
        "X-Model-Precision": loaded.artifact.precision,
        "X-Confidence-Mean": f"{rendered.confidence:.4f}",
        "X-Image-Orientation": str(rendered.orientation),
        "Server-Timing": visit.server_timing(),
        "Vary": "Accept",
    }
    if answer.prediction.scale < 1:
        headers["X-Mask-Scale"] = f"{answer.prediction.scale:.4f}"
    if contribute:
        headers["X-Image-Id"] = (await run_in_threadpool(keep, state, data, decoded=True))[0].id
    return Response(rendered.content, media_type=media_type, headers=headers)
