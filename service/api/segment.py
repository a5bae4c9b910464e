"""`POST /v1/segment`: an image in, its mask out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.answers import ANSWER_DOCS, Rendered, Rendering, offers
from service.api.asked import AskedOf
from service.api.auth import needs, require
from service.api.deps import IMAGE_DOCS, StateOf, read_image
from service.api.images import keep
from service.api.negotiate import negotiate
from service.api.problem_docs import problem_docs
from service.api.shed import ShedRoute
from service.api.wish import WishOf
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
from service.segmentation.decode import inspect

router = APIRouter(prefix="/v1", tags=["segment"], dependencies=[needs("predict")], route_class=ShedRoute)

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
    asked: AskedOf,
    wish: WishOf,
    legend: Annotated[
        bool, Query(description="In an overlay: the classes' names and colours under the picture")
    ] = True,
    contribute: Annotated[bool, Query(description="Keep the image in the pool, to learn from it")] = False,
) -> Response:
    """Segment one image."""
    if contribute:
        require(request, "contribute")
    media_type, loaded = negotiate(request.headers.get("accept"), offers(asked.details)), asked.loaded
    async with state.segmenter.admission(urgency=wish.urgency, timeout_s=wish.timeout_s, model=loaded.version) as visit:
        # Only now: bodies of those that are not admitted stay with the client.
        data = await read_image(request, state.settings.receive_timeout_s)
        answer = await state.segmenter.segment(data, loaded.engine, visit, request.is_disconnected)

        def render() -> Rendered:
            orientation = inspect(data, state.limits).orientation
            return Rendering(answer=answer, asked=asked, orientation=orientation, key=legend).render(media_type)

        rendered = await state.segmenter.encode(render, visit)
    headers = {
        "X-Model-Version": loaded.version,
        "X-Model-Precision": loaded.artifact.precision,
        "X-Confidence-Mean": f"{rendered.confidence:.4f}",
        "X-Image-Orientation": str(rendered.orientation),
        "Server-Timing": visit.header(),
        "Vary": "Accept",
    }
    if answer.prediction.scale < 1:
        headers["X-Mask-Scale"] = f"{answer.prediction.scale:.4f}"
    if contribute:
        headers["X-Image-Id"] = (await run_in_threadpool(keep, state, data, decoded=True))[0].id
    return Response(rendered.content, media_type=media_type, headers=headers)
