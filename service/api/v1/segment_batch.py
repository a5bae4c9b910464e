"""`POST /v1/segment/batch`: many images in one request, their answers streamed back as they finish.

The images wait on the disk. A few at a time go the way that every image goes, through the same door and the same
queues, after those that somebody waits for; they wait in line for their places, and are not refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile

from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import Problem, problem_docs
from service.api.forms import form_files, is_form
from service.api.problems import FAULT, problem_body
from service.api.request_priority import PriorityOf, RequestPriority
from service.api.v1.render import Rendering
from service.api.v1.segment_query import QueryOf, SegmentQuery
from service.errors import (
    BadInput,
    BodyTooSlow,
    ClassUnknown,
    MaskloopError,
    ModelLoading,
    ModelNotFound,
    ModelNotServable,
    NoModel,
    Overloaded,
    Unavailable,
    names_only,
)
from service.segmentation.admission.request_context import BATCH, RequestContext
from service.segmentation.output.description import Description
from service.segmentation.pipeline import ClientDisconnected
from service.state import State

log = structlog.stdlib.get_logger(__name__)
router = APIRouter(prefix="/v1", tags=["segment"], dependencies=[needs("predict")])

NDJSON = "application/x-ndjson"
# How long an image waits for a place among those that are served.
PATIENCE_S = 60.0
REFUSALS = (
    *(BadInput, ModelNotFound, BodyTooSlow, ModelNotServable, ClassUnknown),
    *(Overloaded, NoModel, ModelLoading, Unavailable),
)


class BatchLine(BaseModel):
    """What became of one image: `result` or `problem`."""

    index: int = Field(description="of its part in the form, from 0")
    filename: str = Field(description="as its part says")
    status: int = Field(description="what /v1/segment would have answered with")
    result: Description | None = None
    problem: Problem | None = None

    def to_line(self) -> bytes:
        """Without the fields that are empty."""
        return self.model_dump_json(exclude_none=True).encode() + b"\n"


def _line_schema() -> dict[str, Any]:
    schema = BatchLine.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    # The answer of one image is there already, by the route of one image; what a problem is, is short.
    schema["properties"]["problem"] = schema.pop("$defs")["Problem"]
    return schema


FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}},
}
BODY_DOCS = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}}
ANSWER_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A JSON document a line, one for each image, as they finish. An image that is refused is a line "
        "with its problem, and the others go on.",
        "content": {NDJSON: {"schema": _line_schema()}},
    },
}


async def take_batch(request: Request, state: StateOf, _asked: QueryOf) -> AsyncIterator[list[UploadFile]]:
    """The images of a form, on the disk until the last answer has gone; read when the query has been found good.

    Raises:
        Overloaded: Too many batches are under way.
        BadInput: Not a form, without files, or with too many.
        BodyTooSlow: It did not come at the pace that one image must.
    """
    if not is_form(request):
        raise BadInput("A batch is a form (multipart/form-data): send each image as a part named `file`.")
    settings = state.settings
    remedy = f"send up to {settings.max_batch_images} parts named `file`, or raise MASKLOOP_MAX_BATCH_IMAGES"
    form = form_files(request, folder=settings.tmp_dir, most=settings.max_batch_images, remedy=remedy)
    timeout_s = settings.receive_timeout_s * max(1, settings.max_batch_bytes / settings.max_image_bytes)
    async with AsyncExitStack() as stack:
        await _enter(stack, state)
        try:
            async with asyncio.timeout(timeout_s):
                files = await stack.enter_async_context(form)
        except TimeoutError:
            raise BodyTooSlow(
                f"The batch was not here after {timeout_s:g} s: send less, or raise MASKLOOP_RECEIVE_TIMEOUT_S."
            ) from None
        yield files


async def _enter(stack: AsyncExitStack, state: State) -> None:
    try:
        await stack.enter_async_context(state.batch_gate.admit())
    except Overloaded as error:
        raise Overloaded(
            f"{state.settings.max_concurrent_batches} batches are under way: try again in {error.retry_after_s} s, or "
            "raise MASKLOOP_MAX_CONCURRENT_BATCHES.",
            retry_after_s=error.retry_after_s,
        ) from None


Images = Annotated[list[UploadFile], Depends(take_batch)]


@router.post(
    "/segment/batch",
    response_class=StreamingResponse,
    responses={**ANSWER_DOCS, **problem_docs(*REFUSALS)},
    openapi_extra=BODY_DOCS,
)
async def segment_batch(
    request: Request, *, state: StateOf, asked: QueryOf, wish: PriorityOf, images: Images
) -> StreamingResponse:
    """Segment many images, each as /v1/segment would; `X-Request-Timeout-Ms` is for all of them together."""
    batch = Batch(state, asked, wish, request)
    headers = {"X-Model-Version": asked.loaded.version, "X-Model-Precision": asked.loaded.artifact.precision}
    return StreamingResponse(batch.lines(images), media_type=NDJSON, headers=headers)


class Batch:
    """One request of many images on its way."""

    def __init__(self, state: State, asked: SegmentQuery, wish: RequestPriority, request: Request) -> None:
        self._state = state
        self._asked = asked
        self._urgency = max(BATCH, wish.urgency)
        self._end = None if wish.timeout_s is None else time.monotonic() + wish.timeout_s
        self._gone = request.is_disconnected

    async def lines(self, images: list[UploadFile]) -> AsyncIterator[bytes]:
        """A line for each image, as they finish. Who stops to read them stops the rest."""
        settings = self._state.settings
        # Enough to keep the engine busy, and never all places.
        at_a_time = max(1, min(self._state.pipeline.saturating_images, settings.max_concurrent_requests // 2))
        # No more answers than that wait for a client who reads slowly.
        done: asyncio.Queue[bytes] = asyncio.Queue(at_a_time)
        numbered = enumerate(images)
        workers = [asyncio.create_task(self._work(numbered, done)) for _ in range(at_a_time)]
        try:
            for _ in images:
                yield await done.get()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, images: Iterator[tuple[int, UploadFile]], done: asyncio.Queue[bytes]) -> None:
        for index, image in images:
            await done.put(await self._line(index, image))

    async def _line(self, index: int, image: UploadFile) -> bytes:
        name = image.filename or ""
        try:
            return await self._segmented(index, name, image)
        except MaskloopError as error:
            body = problem_body(error.status, error.slug, error.title, names_only(error.message))
        except ClientDisconnected:
            # Nobody reads it: the stream is about to be cancelled.
            body = problem_body(499, "client-gone", "The client has gone", "The connection was closed.")
        except Exception as error:
            log.exception("unexpected error in a batch", index=index, error=repr(error))
            body = problem_body(500, MaskloopError.slug, MaskloopError.title, FAULT)
        return BatchLine(index=index, filename=name, status=body["status"], problem=Problem(**body)).to_line()

    async def _segmented(self, index: int, name: str, image: UploadFile) -> bytes:
        state, asked = self._state, self._asked
        async with self._place() as visit:
            # Only now, and no more than may be: what waits is on the disk.
            data = await image.read(state.settings.max_image_bytes + 1)
            if not data:
                raise BadInput("The part is empty: send the file itself.")
            answer = await state.pipeline.segment(data, asked.loaded.engine, visit, self._gone)

            def written() -> bytes:
                orientation = answer.image.header.orientation
                result = Rendering(answer=answer, asked=asked, orientation=orientation).describe(asked.details)
                return BatchLine(index=index, filename=name, status=200, result=result).to_line()

            return await state.pipeline.encode(written, visit)

    def _place(self) -> AbstractAsyncContextManager[RequestContext]:
        """A place among all that are served, waited for while others have it.

        Raises:
            Overloaded: There was none for a minute.
            DeadlinePassed: The time of the whole batch is over.
        """
        left_s = None if self._end is None else max(0.0, self._end - time.monotonic())
        version = self._asked.loaded.version
        return self._state.pipeline.admission(urgency=self._urgency, timeout_s=left_s, model=version, wait_s=PATIENCE_S)
