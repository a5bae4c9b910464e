"""`POST /v2/models/MODEL/infer`: tensors or files of pictures in, masks out, in JSON or binary form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.auth import needs
from service.api.dependencies import BINARY, StateOf
from service.api.request_priority import PriorityOf
from service.api.v2.infer_docs import DOCS
from service.api.v2.model_paths import UNKNOWN, Version, error_docs, new_router, of_model
from service.api.v2.tensor_body import largest_body, place, receive, respond
from service.errors import (
    BadInput,
    BodyTooSlow,
    DeadlinePassed,
    EncodingUnsupported,
    ImageTooLarge,
    ImageUnreadable,
    ImageUnsupported,
    ModelLoading,
    ModelNotServable,
    NotSupported,
    OutOfMemory,
    Overloaded,
    Unavailable,
)
from service.open_inference.compression import accepted, deflate, inflate
from service.open_inference.execution import assemble, check_pixels, execute
from service.open_inference.infer_request import InferRequest, parse
from service.open_inference.infer_response import Answer, Head, write
from service.open_inference.model_repository import Served
from service.segmentation.admission.request_context import RequestContext
from service.segmentation.pipeline import Pipeline
from service.state import State

T = TypeVar("T")

router = new_router(needs("predict"))

HEADER_LENGTH = "Inference-Header-Content-Length"
SMALL = 64 * 1024
"""Bytes that are read or written at once, where going to a thread would take longer."""

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The outputs: JSON, or JSON with the tensors behind it",
        "content": {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": BINARY},
    }
}


REFUSALS = (
    *(BadInput, ImageUnreadable, BodyTooSlow, ImageTooLarge, ImageUnsupported, EncodingUnsupported, NotSupported),
    *(ModelNotServable, ModelLoading, Overloaded, OutOfMemory, Unavailable, DeadlinePassed),
)


@of_model(
    router, "POST", "/infer", docs=DOCS, response_class=Response, responses=ANSWERS | error_docs(*UNKNOWN, *REFUSALS)
)
async def infer(request: Request, state: StateOf, model: str, version: Version, wish: PriorityOf) -> Response:
    """Segment images. Timeout and priority in the request's parameters come before those in its headers."""
    # A model that has to be loaded first holds no place among those that are served.
    served = state.model_repository.at_hand(model, version)
    if served is None:
        served = await run_in_threadpool(state.model_repository.lease, model, version)
    with state.statistics.request(model, served.number) as spent:
        admission = state.pipeline.admission(
            urgency=wish.urgency, timeout_s=wish.timeout_s, model=served.loaded.version
        )
        async with place(request, state), admission as visit:
            # Only now: bodies of those that are not admitted stay with the client.
            body = await receive(request, state)
            with spent.stage("compute_input"):
                asked = await _read(body, request, state, served)
            rows = await execute(
                asked, served.loaded, state.pipeline, visit=visit, spent=spent, gone=request.is_disconnected
            )
            with spent.stage("compute_output"):
                answer = await _write(asked, rows, request, state.pipeline, served)
    return _respond(answer, request, served, visit)


async def _read(body: bytes, request: Request, state: State, served: Served) -> InferRequest:
    encoding = request.headers.get("content-encoding", "")

    def read() -> InferRequest:
        plain = inflate(body, encoding, largest_body(state.settings))
        asked = parse(plain, request.headers.get(HEADER_LENGTH), served.face)
        check_pixels(asked, state.settings.max_image_pixels)
        return asked

    return await _beside(read, state.pipeline, small=len(body) <= SMALL and not encoding)


async def _write(
    asked: InferRequest, rows: list[dict[str, Any]], request: Request, segmenter: Pipeline, served: Served
) -> Answer:
    encoding = accepted(request.headers.get("accept-encoding"))
    head = Head(model=served.name.text, version=served.number, id=asked.id, bundle_version=served.loaded.version)

    def work() -> Answer:
        answer = write(head, assemble(asked, rows))
        return replace(answer, parts=deflate(answer.parts, encoding)) if encoding else answer

    return await _beside(work, segmenter, small=isinstance(asked.images, list) and len(rows) == 1 and not encoding)


async def _beside(work: Callable[[], T], segmenter: Pipeline, *, small: bool) -> T:
    return work() if small else await segmenter.run_in_thread(work)


def _respond(answer: Answer, request: Request, served: Served, visit: RequestContext) -> Response:
    headers = {
        "Vary": "Accept-Encoding",
        "X-Model-Version": served.loaded.version,
        "X-Model-Precision": served.loaded.artifact.precision,
        "Server-Timing": visit.server_timing(),
    }
    if encoding := accepted(request.headers.get("accept-encoding")):
        headers["Content-Encoding"] = encoding
    if answer.json_length is None:
        return respond(answer.parts, "application/json", headers)
    headers[HEADER_LENGTH] = str(answer.json_length)
    return respond(answer.parts, "application/octet-stream", headers)
