"""`POST /v2/models/MODEL/infer`: segment tensors or encoded images, in JSON or binary form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.auth import needs
from service.api.dependencies import BINARY, StateOf
from service.api.request_priority import PriorityOf
from service.api.v2.infer_docs import DOCS
from service.api.v2.model_paths import Version, error_docs, new_router, of_model
from service.api.v2.tensor_body import large_body_slot, receive, respond
from service.errors import ADMISSION_ERRORS, IMAGE_ERRORS, MODEL_ERRORS, UPLOAD_ERRORS, NotSupported
from service.open_inference.compression import accepted_encoding, deflate
from service.open_inference.execution import Row, assemble, check_pixels, describe_ignored, execute
from service.open_inference.infer_request import InferRequest, parse
from service.open_inference.infer_response import Head, InferResponse, serialise
from service.open_inference.model_repository import Served
from service.releases.rollout.canary_fallback import answer
from service.segmentation.admission.request_context import RequestContext
from service.segmentation.pipeline import Pipeline
from service.state import State

T = TypeVar("T")

router = new_router(needs("predict"))

HEADER_LENGTH = "Inference-Header-Content-Length"
SMALL_BYTES = 64 * 1024
"""Bodies up to this size are parsed on the event loop: switching to a thread would take longer."""

RESPONSE_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The outputs: JSON, or JSON followed by the tensors",
        "content": {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": BINARY},
    }
}
ERRORS = (*UPLOAD_ERRORS, *IMAGE_ERRORS, *ADMISSION_ERRORS, *MODEL_ERRORS, NotSupported)


@of_model(router, "POST", "/infer", docs=DOCS, response_class=Response, responses=RESPONSE_DOCS | error_docs(*ERRORS))
async def infer(request: Request, state: StateOf, model: str, version: Version, priority: PriorityOf) -> Response:
    """Segment images. Timeout and priority in the parameters take precedence over those in the headers.

    Without a version, the active model answers, or during a canary for a share of the images the candidate.
    """
    # Before admission: loading a version takes seconds.
    repository = state.model_repository
    active = repository.loaded(model, version)
    if active is None:
        active = await run_in_threadpool(repository.lease, model, version)
    with state.statistics.request(model, active.number) as timings:
        admission = state.pipeline.admission(
            urgency=priority.urgency, timeout_s=priority.timeout_s, model=active.loaded.version
        )
        async with large_body_slot(request, state), admission as context:
            # Read the body after admission: bodies of rejected requests stay with the client.
            body = await receive(request, state)
            with timings.stage("compute_input"):
                inference = await _parse(body, request, state, active)

            def attempt(served: Served) -> Awaitable[list[Row]]:
                timings.version = served.number
                context.set_model(served.loaded.version)
                return execute(
                    inference,
                    served.loaded,
                    state.pipeline,
                    context=context,
                    timings=timings,
                    client_disconnected=request.is_disconnected,
                    on_result=partial(state.shadow.offer, served.loaded) if version is None else lambda *_: None,
                )

            canary = await _canary(inference, state, active) if version is None else None
            served, rows = await answer(attempt, canary, active)
            with timings.stage("compute_output"):
                response = await _serialise(inference, rows, request, state.pipeline, served)
    return _respond(response, request, served, context)


async def _parse(body: bytes, request: Request, state: State, served: Served) -> InferRequest:
    def work() -> InferRequest:
        inference = parse(body, request.headers.get(HEADER_LENGTH), served.signature)
        check_pixels(inference, state.settings.max_image_pixels)
        return inference

    return await _run(work, state.pipeline, small=len(body) <= SMALL_BYTES)


async def _canary(inference: InferRequest, state: State, served: Served) -> Served | None:
    """Return the candidate of a canary release, if the first image is in its share.

    One model answers all images of a request, since the response names one version.
    """

    def work() -> Served | None:
        first = inference.images[0]
        image = first if isinstance(first, bytes) else np.ascontiguousarray(first).reshape(-1).data
        canary = state.candidates.canary(served.loaded, image)
        return None if canary is None else state.model_repository.replaced(served, canary)

    return await state.pipeline.run_in_thread(work) if state.candidates.has_canary else None


async def _serialise(
    inference: InferRequest, rows: list[dict[str, Any]], request: Request, pipeline: Pipeline, served: Served
) -> InferResponse:
    encoding = accepted_encoding(request.headers.get("accept-encoding"))
    head = Head(
        model=served.name.text,
        version=served.number,
        id=inference.id,
        bundle_version=served.loaded.version,
        ignored=describe_ignored(rows),
    )

    def work() -> InferResponse:
        response = serialise(head, assemble(inference, rows))
        return replace(response, parts=deflate(response.parts, encoding)) if encoding else response

    return await _run(work, pipeline, small=isinstance(inference.images, list) and len(rows) == 1 and not encoding)


async def _run(work: Callable[[], T], pipeline: Pipeline, *, small: bool) -> T:
    return work() if small else await pipeline.run_in_thread(work)


def _respond(response: InferResponse, request: Request, served: Served, context: RequestContext) -> Response:
    headers = {
        "Vary": "Accept-Encoding",
        "X-Model-Version": served.loaded.version,
        "X-Model-Precision": served.loaded.artifact.precision,
        "Server-Timing": context.server_timing(),
    }
    if encoding := accepted_encoding(request.headers.get("accept-encoding")):
        headers["Content-Encoding"] = encoding
    if response.json_length is None:
        return respond(response.parts, "application/json", headers)
    headers[HEADER_LENGTH] = str(response.json_length)
    return respond(response.parts, "application/octet-stream", headers)
