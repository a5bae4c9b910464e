"""Bodies with tensors: how large one may be, how it comes in, and how an answer goes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from io import BytesIO

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from service.api.dependencies import receive_within
from service.errors import Overloaded
from service.settings import Settings
from service.state import State

JSON_SLACK = 64 * 1024
CHANNELS = 3
AT_ONCE = 1024 * 1024
PIECE = 256 * 1024


def takes_tensors(path: str) -> bool:
    """Whether requests for inference go to this path."""
    return path.startswith("/v2/models/") and path.endswith("/infer")


def largest_body(settings: Settings) -> int:
    """Most bytes of a request for inference, compressed and not: the pixels of one largest image, and JSON."""
    return max(CHANNELS * settings.max_image_pixels, settings.max_image_bytes) + JSON_SLACK


@asynccontextmanager
async def place(request: Request, state: State) -> AsyncIterator[None]:
    """A place for a body that may be larger than the file of an image; smaller ones need none.

    To be had before admission: those who wait for it hold nothing that others need.

    Raises:
        Overloaded: There was none for as long as a body may take.
    """
    announced = request.headers.get("content-length", "")
    small = announced.isdigit() and int(announced) <= state.settings.max_image_bytes + JSON_SLACK
    if small and "content-encoding" not in request.headers:
        yield
        return
    try:
        async with asyncio.timeout(state.settings.receive_timeout_s):
            await state.large_bodies.acquire()
    except TimeoutError:
        raise Overloaded("Other large requests are under way: try again in 1 s.", retry_after_s=1) from None
    try:
        yield
    finally:
        state.large_bodies.release()


async def receive(request: Request, state: State) -> bytes:
    """The body. To be called with a place among those that are served."""
    return await receive_within(_collect(request), state.settings.receive_timeout_s)


async def _collect(request: Request) -> bytes:
    # Unlike a list of parts, it is not copied as a whole at the end.
    sink = BytesIO()
    async for part in request.stream():
        sink.write(part)
    return sink.getvalue()


def respond(parts: Sequence[bytes | memoryview], media_type: str, headers: dict[str, str]) -> Response:
    """An answer: at once, or if it is large piece by piece, as the client takes it."""
    size = sum(map(len, parts))
    if size <= AT_ONCE:
        return Response(b"".join(parts), media_type=media_type, headers=headers)
    headers = headers | {"Content-Length": str(size)}
    return StreamingResponse(_pieces(parts), media_type=media_type, headers=headers)


async def _pieces(parts: Sequence[bytes | memoryview]) -> AsyncIterator[bytes]:
    for part in parts:
        for at in range(0, len(part), PIECE):
            yield bytes(part[at : at + PIECE])
