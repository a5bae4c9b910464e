"""Receive and send bodies with tensors: size limits, memory limits and streaming."""

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
MAX_UNSTREAMED_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024


def takes_tensors(path: str) -> bool:
    """Whether this is the path of an inference request."""
    return path.startswith("/v2/models/") and path.endswith("/infer")


def largest_body(settings: Settings) -> int:
    """Largest inference request in bytes, compressed or not: the pixels of one largest image, and JSON."""
    return max(CHANNELS * settings.max_image_pixels, settings.max_image_bytes) + JSON_SLACK


@asynccontextmanager
async def large_body_slot(request: Request, state: State) -> AsyncIterator[None]:
    """Limit the large bodies in memory: wait for a slot if the body may exceed the limit for encoded images.

    Use it before admission, so that waiting requests hold no other resource. Raises Overloaded after
    `receive_timeout_s`.
    """
    declared = request.headers.get("content-length", "")
    small = declared.isdigit() and int(declared) <= state.settings.max_image_bytes + JSON_SLACK
    if small and "content-encoding" not in request.headers:
        yield
        return
    try:
        async with asyncio.timeout(state.settings.receive_timeout_s):
            await state.large_bodies.acquire()
    except TimeoutError:
        raise Overloaded("Other large requests are in progress: try again in 1 s.", retry_after_s=1) from None
    try:
        yield
    finally:
        state.large_bodies.release()


async def receive(request: Request, state: State) -> bytes:
    """Read the body. Call it after admission."""
    return await receive_within(_collect(request), state.settings.receive_timeout_s)


async def _collect(request: Request) -> bytes:
    # BytesIO avoids the copy of joining a list of parts.
    sink = BytesIO()
    async for part in request.stream():
        sink.write(part)
    return sink.getvalue()


def respond(parts: Sequence[bytes | memoryview], media_type: str, headers: dict[str, str]) -> Response:
    """Create a response; stream it in chunks if it is large."""
    size = sum(map(len, parts))
    if size <= MAX_UNSTREAMED_BYTES:
        return Response(b"".join(parts), media_type=media_type, headers=headers)
    headers = headers | {"Content-Length": str(size)}
    return StreamingResponse(_chunks(parts), media_type=media_type, headers=headers)


async def _chunks(parts: Sequence[bytes | memoryview]) -> AsyncIterator[bytes]:
    for part in parts:
        for at in range(0, len(part), CHUNK_BYTES):
            yield bytes(part[at : at + CHUNK_BYTES])
