"""FastAPI dependencies: the process state, and the uploaded file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from service.api.forms import form_files, is_form
from service.errors import BadInput, BodyTooSlow
from service.state import State

T = TypeVar("T")
BINARY = {"schema": {"type": "string", "format": "binary"}}
MULTIPART = {"schema": {"type": "object", "required": ["file"], "properties": {"file": BINARY["schema"]}}}


def upload_docs(*media_types: str) -> dict[str, Any]:
    """Return the OpenAPI request body of one file: the body itself, or the part `file` of a form."""
    content: dict[str, Any] = dict.fromkeys(media_types, BINARY)
    return {"requestBody": {"required": True, "content": {**content, "multipart/form-data": MULTIPART}}}


IMAGE_DOCS = upload_docs("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff", "image/avif")


async def get_state(request: Request) -> State:
    """Return the state that the lifespan opened."""
    state: State = request.state.maskloop
    return state


StateOf = Annotated[State, Depends(get_state)]


async def read_image(request: Request, timeout_s: float) -> bytes:
    """Read the file of a request into memory: the body, or the part `file` of a form. Call it after admission.

    Raises BadInput if there is no file, BodyTooSlow after `timeout_s` seconds.
    """
    data = await receive_within(_read(request), timeout_s)
    if not data:
        raise BadInput("The body is empty: send the file itself, or a form with a part named `file`.")
    return data


async def receive_within(body: Awaitable[T], timeout_s: float) -> T:
    """Wait for a body; raise BodyTooSlow after `timeout_s` seconds."""
    try:
        async with asyncio.timeout(timeout_s):
            return await body
    except TimeoutError:
        raise BodyTooSlow(
            f"The body did not arrive within {timeout_s:g} s: send less, or raise MASKLOOP_RECEIVE_TIMEOUT_S."
        ) from None


async def _read(request: Request) -> bytes:
    if not is_form(request):
        return await request.body()
    async with form_files(request, folder=None) as parts:
        return await parts[0].read()


async def receive_upload(request: Request, state: StateOf) -> AsyncIterator[bytes]:
    """Receive a file for the pool; the upload counts against its limit until the response is complete."""
    async with state.upload_gate.admit():
        yield await read_image(request, state.settings.receive_timeout_s)


Upload = Annotated[bytes, Depends(receive_upload)]
