"""How large a body may be that brings tensors, and how it comes in."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from fastapi import Request

from service.api.deps import in_time
from service.settings import Settings
from service.state import State

JSON_SLACK = 64 * 1024
CHANNELS = 3


def takes_tensors(path: str) -> bool:
    """Whether requests for inference go to this path."""
    return path.startswith("/v2/models/") and path.endswith("/infer")


def largest_body(settings: Settings) -> int:
    """Most bytes of a request for inference, compressed and not: the pixels of one largest image, and JSON."""
    return max(CHANNELS * settings.max_image_pixels, settings.max_image_bytes) + JSON_SLACK


def place(request: Request, state: State) -> AbstractAsyncContextManager[Any]:
    """A place for a body that may be larger than the file of an image; smaller ones need none."""
    announced = request.headers.get("content-length", "")
    small = announced.isdigit() and int(announced) <= state.settings.max_image_bytes + JSON_SLACK
    return nullcontext() if small and "content-encoding" not in request.headers else state.large_bodies


async def receive(request: Request, state: State) -> bytes:
    """The body. To be called with a place among those that are served."""
    return await in_time(request.body(), state.settings.receive_timeout_s)
