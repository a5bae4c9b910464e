"""`POST /v1/images/batch`: add many images to the pool, several in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from anyio import CancelScope
from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile

from service.api.auth import needs
from service.api.batches import BATCH_DOCS, NDJSON, BatchFiles, problem_of
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import Problem, problem_docs
from service.api.v1.images import ImageOut, count_kept
from service.errors import UPLOAD_ERRORS, BadInput
from service.images.new_images import NewImage
from service.state import State

router = APIRouter(prefix="/v1/images", tags=["images"], dependencies=[needs("contribute")])

# Images of one transaction. They are in memory together.
MAX_IMAGES, MAX_BYTES = 32, 16 * 2**20
CONCURRENT = 2

Part = tuple[int, UploadFile]


class AddedLine(BaseModel):
    """Outcome of one image: `image` or `problem`."""

    index: int = Field(description="index of the part in the form, from 0")
    filename: str = Field(description="file name of the part")
    status: int = Field(description="status that /v1/images would have returned: 201, or 200 if the pool has the image")
    image: ImageOut | None = None
    problem: Problem | None = None


def _line_schema() -> dict[str, Any]:
    schema = AddedLine.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    # /v1/images already adds the schema of an image.
    schema["properties"]["problem"] = schema.pop("$defs")["Problem"]
    return schema


LINES_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One JSON document per line and image, in order of completion. A rejected image gives a line "
        "with its problem; the other images are added.",
        "content": {NDJSON: {"schema": _line_schema()}},
    }
}


@router.post(
    "/batch",
    response_class=StreamingResponse,
    responses={**LINES_DOCS, **problem_docs(*UPLOAD_ERRORS)},
    openapi_extra=BATCH_DOCS,
)
async def add_images(state: StateOf, files: BatchFiles) -> StreamingResponse:
    """Add many images to the pool, each as POST /v1/images does, at a fraction of its cost."""
    return StreamingResponse(_lines(state, files), media_type=NDJSON)


async def _lines(state: State, files: list[UploadFile]) -> AsyncIterator[bytes]:
    """Yield the lines of the images, in order of completion. Closing the iterator skips the remaining images."""
    groups = _groups(files)
    running: set[asyncio.Future[bytes]] = set()
    try:
        while True:
            while len(running) < CONCURRENT and (group := next(groups, None)):
                running.add(asyncio.ensure_future(run_in_threadpool(_add, state, group)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                yield each.result()
    finally:
        # Their files are closed next.
        if running:
            with CancelScope(shield=True):
                await asyncio.wait(running)


def _groups(files: list[UploadFile]) -> Iterator[list[Part]]:
    """Group the parts of a form into transactions, in order."""
    group: list[Part] = []
    size = 0
    for index, file in enumerate(files):
        size += file.size or 0
        if group and (len(group) == MAX_IMAGES or size > MAX_BYTES):
            yield group
            group, size = [], file.size or 0
        group.append((index, file))
    if group:
        yield group


def _add(state: State, group: list[Part]) -> bytes:
    """Add images in one transaction; return their lines."""
    lines: list[AddedLine] = []
    received: list[tuple[Part, NewImage]] = []
    for part in group:
        try:
            received.append((part, _receive(state, part[1])))
        except Exception as error:
            lines.append(_failed(state, part, error))
    try:
        added = state.images.add_all([image for _, image in received])
    except Exception as error:
        return _joined(lines + [_failed(state, part, error) for part, _ in received])
    for ((index, file), _), (image, is_new) in zip(received, added, strict=True):
        out = ImageOut.model_validate(image)
        lines.append(AddedLine(index=index, filename=file.filename or "", status=201 if is_new else 200, image=out))
    count_kept(state, [image for image, is_new in added if is_new])
    return _joined(lines)


def _receive(state: State, file: UploadFile) -> NewImage:
    # At most one byte more than the limit.
    data = file.file.read(state.settings.max_image_bytes + 1)
    if not data:
        raise BadInput("The part is empty: send the file itself.")
    model = state.active_model.current
    return state.images.receive(data, value_range=model.value_range if model else None)


def _failed(state: State, part: Part, error: Exception) -> AddedLine:
    problem = problem_of(error, state)
    return AddedLine(index=part[0], filename=part[1].filename or "", status=problem.status, problem=problem)


def _joined(lines: list[AddedLine]) -> bytes:
    return b"".join(line.model_dump_json(exclude_unset=True).encode() + b"\n" for line in lines)
