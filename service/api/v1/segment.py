"""`POST /v1/segment`: segment one image."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute

from service.api.auth import needs, require
from service.api.dependencies import IMAGE_DOCS, StateOf, read_image
from service.api.docs.problem_docs import problem_docs
from service.api.request_priority import PriorityOf
from service.api.v1.images import keep
from service.api.v1.render import RESULT_DOCS, media_types, negotiate, render
from service.api.v1.segment_query import QueryOf, SegmentQuery, segment_image
from service.errors import (
    ADMISSION_ERRORS,
    IMAGE_ERRORS,
    MODEL_ERRORS,
    UPLOAD_ERRORS,
    ClassUnknown,
    ImageUnsupported,
    NotAcceptable,
    PoolFull,
    StorageFailed,
    StorageUnwritable,
)
from service.segmentation.admission.request_context import RequestContext
from service.segmentation.output.description import mean_confidence
from service.segmentation.pipeline import Result
from service.state import State
from service.storage.storage_faults import storage_faults

log = structlog.stdlib.get_logger(__name__)


class LoadSheddingRoute(APIRoute):
    """Check admission before authentication and parsing, which halves the cost of a rejection.

    An overloaded service therefore answers 503 instead of 401, 422 or 429; the request counts against no rate limit,
    and its log line names no key. /v2 checks later, since its statistics count rejections by model.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def check_admission_first(request: Request) -> Response:
            state: State = request.state.maskloop
            state.pipeline.check_admission()
            return await handle(request)

        return check_admission_first


router = APIRouter(prefix="/v1", tags=["segment"], dependencies=[needs("predict")], route_class=LoadSheddingRoute)


@router.post(
    "/segment",
    response_class=Response,
    responses={
        **RESULT_DOCS,
        **problem_docs(*UPLOAD_ERRORS, *IMAGE_ERRORS, *ADMISSION_ERRORS, *MODEL_ERRORS, ClassUnknown, NotAcceptable),
    },
    openapi_extra=IMAGE_DOCS,
)
async def segment(
    request: Request,
    *,
    state: StateOf,
    query: QueryOf,
    priority: PriorityOf,
    legend: Annotated[bool, Query(description="Append the names and colours of the classes below an overlay")] = True,
    contribute: Annotated[
        bool, Query(description="Keep the image in the pool, for training, if the collection policy wants it")
    ] = False,
) -> Response:
    """Segment one image."""
    if contribute:
        require(request, "contribute")
    media_type = negotiate(request.headers.get("accept"), media_types(query.options))
    async with state.pipeline.admission(
        urgency=priority.urgency, timeout_s=priority.timeout_s, model=query.model.version
    ) as context:
        # Read the body after admission: that of a rejected request is never received.
        data = await read_image(request, state.settings.receive_timeout_s)
        query, result = await segment_image(query, state, data, context, request.is_disconnected)

        def encode() -> tuple[bytes, float]:
            return render(result, query, media_type, legend=legend), mean_confidence(result.prediction)

        content, confidence = await state.pipeline.encode(encode, context)
    headers = _headers(result, query, context, confidence)
    if contribute or state.collection_policy.is_sampled():
        kept = await run_in_threadpool(_collect, state, data, confidence)
        # A client that did not ask learns only the id, with which it can delete its image.
        headers |= kept if contribute or "X-Image-Id" in kept else {}
    return Response(content, media_type=media_type, headers=headers)


def _collect(state: State, data: bytes, confidence: float) -> dict[str, str]:
    """Keep the image if the policy wants it; return the header with its id, or with the reason."""
    refusal = state.collection_policy.refusal(confidence)
    return _keep(state, data) if refusal is None else {"X-Image-Skipped": refusal}


def _keep(state: State, data: bytes) -> dict[str, str]:
    """Keep the image; return the header with its id, or with the reason: a full disk must not cost the mask.

    ImageUnsupported: the model of `?model=` declares a value range, and the active one does not.
    """
    try:
        with storage_faults(state.settings.data_dir):
            return {"X-Image-Id": keep(state, data, decoded=True)[0].id}
    except PoolFull as error:
        return {"X-Image-Error": error.slug}
    except (StorageUnwritable, StorageFailed, ImageUnsupported) as error:
        log.warning("image not kept", reason=str(error))
        return {"X-Image-Error": error.slug}


def _headers(result: Result, query: SegmentQuery, context: RequestContext, confidence: float) -> dict[str, str]:
    headers = {
        "X-Model-Version": query.model.version,
        "X-Model-Precision": query.model.artifact.precision,
        "X-Confidence-Mean": f"{confidence:.4f}",
        "X-Image-Orientation": str(result.image.header.orientation),
        "Server-Timing": context.server_timing(),
        "Vary": "Accept",
    }
    if ignored := result.image.header.ignored:
        headers["X-Image-Ignored"] = ignored
    if result.image.is_nearly_black:
        headers["X-Image-Warning"] = "nearly black"
    if result.prediction.scale < 1:
        headers["X-Mask-Scale"] = f"{result.prediction.scale:.4f}"
    return headers
