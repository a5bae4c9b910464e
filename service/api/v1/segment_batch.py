"""`POST /v1/segment/batch`: segment many images; each result is streamed as soon as it is ready.

A few images at a time pass through the pipeline of single images, after interactive requests; they wait for admission
instead of being rejected.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile

from service.api.auth import needs
from service.api.batches import BATCH_DOCS, NDJSON, batch_files, problem_of
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import Problem, problem_docs
from service.api.request_priority import PriorityOf, RequestPriority
from service.api.v1.render import describe_result
from service.api.v1.segment_query import QueryOf, SegmentQuery, segment_image
from service.errors import MODEL_ERRORS, UPLOAD_ERRORS, BadInput, ClassUnknown
from service.segmentation.admission.request_context import BATCH
from service.segmentation.output.description import Description
from service.state import State

router = APIRouter(prefix="/v1", tags=["segment"], dependencies=[needs("predict")])

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


LINES_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One JSON document per line and image, in order of completion. A failed image gives a "
        "line with its problem; the other images continue.",
        "content": {NDJSON: {"schema": _line_schema()}},
    }
}


async def _receive(request: Request, state: StateOf, _query: QueryOf) -> AsyncIterator[list[UploadFile]]:
    """Store the images after the query was validated."""
    async with batch_files(request, state) as files:
        yield files


Images = Annotated[list[UploadFile], Depends(_receive)]


@router.post(
    "/segment/batch",
    response_class=StreamingResponse,
    responses={**LINES_DOCS, **problem_docs(*UPLOAD_ERRORS, *MODEL_ERRORS, ClassUnknown)},
    openapi_extra=BATCH_DOCS,
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
        except Exception as error:
            problem = problem_of(error, self._state)
        return BatchLine(index=index, filename=name, status=problem.status, problem=problem).to_line()

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
