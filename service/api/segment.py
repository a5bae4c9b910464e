"""`POST /v1/segment`: an image in, its mask out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.auth import needs, require
from service.api.deps import IMAGE_DOCS, StateOf, read_image
from service.api.images import keep
from service.api.negotiate import negotiate
from service.api.wish import WishOf
from service.models.loading import LoadedModel
from service.segmentation.describe import Description, describe, mean_confidence
from service.segmentation.render import mask_png, overlay_jpeg
from service.segmentation.segmenter import Segmentation

router = APIRouter(prefix="/v1", tags=["segment"], dependencies=[needs("predict")])


def _png(answer: Segmentation, loaded: LoadedModel) -> bytes:
    return mask_png(answer.prediction.mask_HW, loaded.legend)


def _json(answer: Segmentation, loaded: LoadedModel) -> bytes:
    return describe(answer.prediction, loaded.legend, model=loaded.version).model_dump_json().encode()


def _jpeg(answer: Segmentation, loaded: LoadedModel) -> bytes:
    return overlay_jpeg(answer.image_HW3, answer.prediction.mask_HW, loaded.legend)


# In the order of preference where the client has none.
RENDERERS: dict[str, Callable[[Segmentation, LoadedModel], bytes]] = {
    "image/png": _png,
    "application/json": _json,
    "image/jpeg": _jpeg,
}

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Description,
        "description": "By `Accept`: the mask as an indexed PNG (pixel = class id, palette = class colours), the "
        "classes as JSON, or the overlay as JPEG. All show the image upright, with its EXIF orientation applied.",
        "content": {
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post("/segment", response_class=Response, responses=ANSWERS, openapi_extra=IMAGE_DOCS)
async def segment(
    request: Request,
    state: StateOf,
    wish: WishOf,
    model: Annotated[str | None, Query(description="A version other than the active one")] = None,
    contribute: Annotated[bool, Query(description="Keep the image in the pool, to learn from it")] = False,
) -> Response:
    """Segment one image."""
    if contribute:
        require(request, "contribute")
    media_type = negotiate(request.headers.get("accept"), list(RENDERERS))
    # A model that has to be loaded first holds no place among those that are served.
    loaded = await run_in_threadpool(state.slot.lease, model) if model else state.slot.require()
    async with state.segmenter.admission(urgency=wish.urgency, timeout_s=wish.timeout_s, model=loaded.version) as visit:
        # Only now: bodies of those that are not admitted stay with the client.
        data = await read_image(request, state.settings.receive_timeout_s)
        answer = await state.segmenter.segment(data, loaded.engine, visit, request.is_disconnected)
        content = await state.segmenter.encode(lambda: RENDERERS[media_type](answer, loaded), visit)
    headers = {
        "X-Model-Version": loaded.version,
        "X-Model-Precision": loaded.artifact.precision,
        "X-Confidence-Mean": f"{mean_confidence(answer.prediction):.4f}",
        "Server-Timing": visit.header(),
        "Vary": "Accept",
    }
    if answer.prediction.scale < 1:
        headers["X-Mask-Scale"] = f"{answer.prediction.scale:.4f}"
    if contribute:
        headers["X-Image-Id"] = (await run_in_threadpool(keep, state, data, decoded=True))[0].id
    return Response(content, media_type=media_type, headers=headers)
