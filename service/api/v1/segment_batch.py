"""`POST /v1/segment/batch`: segment many images; each result is streamed as soon as it is ready.

A few images at a time pass through the pipeline of single images, after interactive requests; they wait for admission
instead of being rejected.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile

from service.api.auth import needs
from service.api.dependencies import StateOf, receive_within
from service.api.docs.problem_docs import Problem, problem_docs
from service.api.forms import form_files, is_form
from service.api.problems import CLIENT_DISCONNECTED, INTERNAL_DETAIL, problem_body
from service.api.request_priority import PriorityOf, RequestPriority
from service.api.v1.render import describe_result
from service.api.v1.segment_query import QueryOf, SegmentQuery, segment_image
from service.errors import MODEL_ERRORS, UPLOAD_ERRORS, BadInput, ClassUnknown, MaskloopError, names_only
from service.segmentation.admission.request_context import BATCH
from service.segmentation.output.description import Description
from service.segmentation.pipeline import ClientDisconnected
from service.state import State

log = structlog.stdlib.get_logger(__name__)
router = APIRouter(prefix="/v1", tags=["segment"], dependencies=[needs("predict")])

NDJSON = "application/x-ndjson"
# Longest wait of an image for admission.
ADMISSION_TIMEOUT_S = 60.0


class BatchLine(BaseModel):
    """Outcome of one image: `result` or `problem`."""

    index: int = Field(description="index of the part in the form, from 0")
    filename: str = Field(description="file name of the part")
    status: int = Field(description="status that /v1/segment would have returned")
    result: Description | None = None
    problem: Problem | None = None

    def to_line(self) -> bytes:
        """Serialise as one line of JSON."""
        return self.model_dump_json(exclude_none=True).encode() + b"\n"


def _line_schema() -> dict[str, Any]:
    schema = BatchLine.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    # /v1/segment already adds the schema of a result.
    schema["properties"]["problem"] = schema.pop("$defs")["Problem"]
    return schema


FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}},
}
BODY_DOCS = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}}
LINES_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One JSON document per line and image, in order of completion. A failed image gives a "
        "line with its problem; the other images continue.",
        "content": {NDJSON: {"schema": _line_schema()}},
    }
}


async def receive_batch(request: Request, state: StateOf, _query: QueryOf) -> AsyncIterator[list[UploadFile]]:
    """Store the images of a form on disk, after the query was validated; delete them when the response ends.

    Raises:
        Overloaded: Too many batch requests are in progress.
        BadInput: Not a form, no files, or too many.
        BodyTooSlow: The body did not arrive within the timeout, which grows with the size limit.
    """
    if not is_form(request):
        raise BadInput("A batch is a form (multipart/form-data): send each image as a part named `file`.")
    settings = state.settings
    remedy = f"send up to {settings.max_batch_images} parts named `file`, or raise MASKLOOP_MAX_BATCH_IMAGES"
    form = form_files(request, folder=settings.tmp_dir, most=settings.max_batch_images, remedy=remedy)
    timeout_s = settings.receive_timeout_s * max(1, settings.max_batch_bytes / settings.max_image_bytes)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(state.batch_gate.admit())
        yield await receive_within(stack.enter_async_context(form), timeout_s)


Images = Annotated[list[UploadFile], Depends(receive_batch)]


@router.post(
    "/segment/batch",
    response_class=StreamingResponse,
    responses={**LINES_DOCS, **problem_docs(*UPLOAD_ERRORS, *MODEL_ERRORS, ClassUnknown)},
    openapi_extra=BODY_DOCS,
)
async def segment_batch(
    request: Request, *, state: StateOf, query: QueryOf, priority: PriorityOf, images: Images
) -> StreamingResponse:
    """Segment many images, each as /v1/segment does; `X-Request-Timeout-Ms` applies to all of them together.

    During a canary, a share of the images is segmented by another model than the headers name: `model` in each result.
    """
    batch = Batch(state, query, priority, request)
    headers = {"X-Model-Version": query.model.version, "X-Model-Precision": query.model.artifact.precision}
    return StreamingResponse(batch.lines(images), media_type=NDJSON, headers=headers)


class Batch:
    """A batch request in progress."""

    def __init__(self, state: State, query: SegmentQuery, priority: RequestPriority, request: Request) -> None:
        self._state = state
        self._query = query
        self._urgency = max(BATCH, priority.urgency)
        self._deadline = None if priority.timeout_s is None else time.monotonic() + priority.timeout_s
        self._client_disconnected = request.is_disconnected

    async def lines(self, images: list[UploadFile]) -> AsyncIterator[bytes]:
        """Yield one line per image, in order of completion. Closing the iterator cancels the remaining images."""
        workers = max(1, min(self._state.pipeline.saturating_images, self._state.settings.max_concurrent_requests // 2))
        done: asyncio.Queue[bytes] = asyncio.Queue(workers)
        numbered = enumerate(images)
        tasks = [asyncio.create_task(self._work(numbered, done)) for _ in range(workers)]
        try:
            for _ in images:
                yield await done.get()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, images: Iterator[tuple[int, UploadFile]], done: asyncio.Queue[bytes]) -> None:
        for index, image in images:
            await done.put(await self._line(index, image))

    async def _line(self, index: int, image: UploadFile) -> bytes:
        name = image.filename or ""
        try:
            return await self._segment(index, name, image)
        except MaskloopError as error:
            body = problem_body(error.status, error.slug, error.title, names_only(error.message))
        except ClientDisconnected:
            body = problem_body(*CLIENT_DISCONNECTED)
        except Exception as error:
            log.exception("unexpected error in a batch", index=index, error=repr(error))
            body = problem_body(500, MaskloopError.slug, MaskloopError.title, INTERNAL_DETAIL)
        return BatchLine(index=index, filename=name, status=body["status"], problem=Problem(**body)).to_line()

    async def _segment(self, index: int, name: str, image: UploadFile) -> bytes:
        state = self._state
        remaining_s = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        admission = state.pipeline.admission(
            urgency=self._urgency,
            timeout_s=remaining_s,
            model=self._query.model.version,
            wait_s=ADMISSION_TIMEOUT_S,
        )
        async with admission as context:
            # Read the file only after admission, and at most one byte more than the limit.
            data = await image.read(state.settings.max_image_bytes + 1)
            if not data:
                raise BadInput("The part is empty: send the file itself.")
            query, result = await segment_image(self._query, state, data, context, self._client_disconnected)

            def encode() -> bytes:
                description = describe_result(result, query, query.options)
                return BatchLine(index=index, filename=name, status=200, result=description).to_line()

            return await state.pipeline.encode(encode, context)
