"""Headers that every answer carries: for browsers what they may do with it, and what the call itself has to add.

TLS, and with it `Strict-Transport-Security`, is for the proxy in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Names in small letters, as ASGI wants them. A route that sends one of these has the last word.
HEADERS = {
    # A picture or a JSON is never a page, whatever a browser makes of its bytes.
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    # Masks, images and runs are somebody's: they do not stay in the caches between.
    b"cache-control": b"no-store",
}
ADDED = "answer_headers"


def add_headers(scope: Scope, headers: Mapping[str, str]) -> None:
    """Let the answer to this request carry more headers, be it a success or an error."""
    added: dict[bytes, bytes] = scope["state"].setdefault(ADDED, {})
    added.update((name.lower().encode(), value.encode()) for name, value in headers.items())


class SecurityHeaders:
    """ASGI middleware: adds the headers that an answer does not have yet."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, watching the beginning of its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_state: dict[str, Any] = scope.setdefault("state", {})

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                present = {name.lower() for name, _ in headers}
                wanted = HEADERS | request_state.get(ADDED, {})
                message = {**message, "headers": headers + [item for item in wanted.items() if item[0] not in present]}
            await send(message)

        await self._app(scope, receive, adding)
