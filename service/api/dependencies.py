"""What endpoints ask for: the state of the process, and the encoded image in a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Annotated, Any

from fastapi import Depends, Request

from service.api.forms import form_file, is_form
from service.errors import BadInput, BodyTooSlow, Overloaded
from service.state import State

BINARY = {"schema": {"type": "string", "format": "binary"}}
MULTIPART = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
}


def upload_docs(*media_types: str) -> dict[str, Any]:
    """How OpenAPI shows a body that is one file: as it is, or as `file` of a form."""
    content: dict[str, Any] = dict.fromkeys(media_types, BINARY)
    return {"requestBody": {"required": True, "content": {**content, "multipart/form-data": MULTIPART}}}


IMAGE_DOCS = upload_docs("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff", "image/avif")


# Async, though it waits for nothing: a plain function would go to a thread, and probes would wait for a busy pool.
async def get_state(request: Request) -> State:
    """The state that the lifespan opened."""
    state: State = request.state.maskloop
    return state


StateOf = Annotated[State, Depends(get_state)]


async def read_image(request: Request, timeout_s: float) -> bytes:
    """The file in a request, into memory: its body, or the part `file` of a form.

    To be called with a place in a door: only so many bodies are in memory at one time.

    Raises:
        BadInput: The body is empty, or the form holds no file.
        BodyTooSlow: It was not here after `timeout_s`.
    """
    data = await in_time(_read(request), timeout_s)
    if not data:
        raise BadInput("The body is empty: send the file itself, or a form with a part named `file`.")
    return data


async def in_time(body: Awaitable[bytes], timeout_s: float) -> bytes:
    """A body that is being received.

    Raises:
        BodyTooSlow: It was not here after `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await body
    except TimeoutError:
        raise BodyTooSlow(
            f"The body was not here after {timeout_s:g} s: send less, or raise MASKLOOP_RECEIVE_TIMEOUT_S."
        ) from None


async def _read(request: Request) -> bytes:
    if not is_form(request):
        return await request.body()
    async with form_file(request, folder=None) as part:
        return await part.read()


async def take_in(request: Request, state: StateOf) -> AsyncIterator[bytes]:
    """A file for the pool, which keeps its place in the door of the pool until the request is answered."""
    async with state.upload_gate.admit():
        yield await read_image(request, state.settings.receive_timeout_s)


Upload = Annotated[bytes, Depends(take_in)]
# What the pool says of bodies, whatever is in them.
UPLOAD_ERRORS = (BadInput, BodyTooSlow, Overloaded)
