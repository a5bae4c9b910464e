"""Limit the size of request bodies while they arrive.

Starlette's own limit (`max_body_size`) answers in plain text; this one like every other error of the path.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import from_error
from service.errors import BodyTooLarge

# Part headers and boundaries of a multipart upload.
MULTIPART_SLACK = 64 * 1024
PART_SLACK = 4 * 1024


class _TooLarge(Exception):  # noqa: N818 - only unwinds the application
    pass


class BodyLimit:
    """ASGI middleware: answer 413 if a body exceeds the limit of its path in bytes, with or without Content-Length."""

    def __init__(self, app: ASGIApp, limit: Callable[[str], int]) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            await _too_large_response(scope["path"], limit)(scope, receive, send)
            return
        await self._count(scope, receive, send, limit)

    async def _count(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        received = 0
        too_large = started = False

        async def counted_receive() -> Message:
            nonlocal received, too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                too_large = True
                raise _TooLarge
            return message

        async def guarded_send(message: Message) -> None:
            nonlocal started
            # Drop the application's response to the truncated body: the client gets the real reason.
            if not too_large or started:
                started = True
                await send(message)

        with suppress(_TooLarge):
            await self._app(scope, counted_receive, guarded_send)
        if too_large and not started:
            await _too_large_response(scope["path"], limit)(scope, receive, send)


def _too_large_response(path: str, limit: int) -> ASGIApp:
    return from_error(
        path,
        BodyTooLarge(
            f"The body exceeds the {limit} bytes that this path allows: send less, or raise MASKLOOP_MAX_IMAGE_BYTES "
            "(for models MASKLOOP_MAX_BUNDLE_BYTES, for batches MASKLOOP_MAX_BATCH_BYTES, for imports "
            "MASKLOOP_MAX_IMPORT_BYTES, for tensors MASKLOOP_MAX_IMAGE_PIXELS)."
        ),
    )
