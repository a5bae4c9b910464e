"""Request bodies are counted while they arrive, before anything parses or stores them.

Starlette has such a limit of its own (`max_body_size`), which answers in plain text; ours answers as every other error
of the same path.
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
# The same of each part where there are many.
PART_SLACK = 4 * 1024


class _TooLarge(Exception):  # noqa: N818 - a signal to ourselves through the application
    pass


class BodyLimit:
    """ASGI middleware: answers 413 for a body above the limit of its path, announced or not.

    Args:
        app: What it stands before.
        limit: The most bytes a body may have, by path.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[str], int]) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            await _refusal(scope["path"], limit)(scope, receive, send)
            return
        await self._count(scope, receive, send, limit)

    async def _count(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        received = 0
        too_large = started = False

        async def counting() -> Message:
            nonlocal received, too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                too_large = True
                raise _TooLarge
            return message

        async def watching(message: Message) -> None:
            nonlocal started
            # Whatever the application makes of the broken-off body, the client is told the real reason.
            if not too_large or started:
                started = True
                await send(message)

        with suppress(_TooLarge):
            await self._app(scope, counting, watching)
        if too_large and not started:
            await _refusal(scope["path"], limit)(scope, receive, send)


def _refusal(path: str, limit: int) -> ASGIApp:
    return from_error(
        path,
        BodyTooLarge(
            f"The body is larger than the {limit} bytes allowed here: send less, or raise MASKLOOP_MAX_IMAGE_BYTES "
            "(for models MASKLOOP_MAX_BUNDLE_BYTES, for batches MASKLOOP_MAX_BATCH_BYTES, for tensors "
            "MASKLOOP_MAX_IMAGE_PIXELS)."
        ),
    )
