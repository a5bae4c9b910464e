"""Add security headers, and the headers that a request collected, to every response. TLS is the task of a proxy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# ASGI requires lower-case names. A header that a route sets takes precedence.
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    # Masks, images and runs are private: proxies must not cache them.
    b"cache-control": b"no-store",
}
COLLECTED = "response_headers"


def add_headers(scope: Scope, headers: Mapping[str, str]) -> None:
    """Add headers to the response of this request, whether it succeeds or fails."""
    added: dict[bytes, bytes] = scope["state"].setdefault(COLLECTED, {})
    added.update((name.lower().encode(), value.encode()) for name, value in headers.items())


def complete_headers(app: ASGIApp) -> ASGIApp:
    """ASGI middleware: add the headers that a response lacks."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request_state: dict[str, Any] = scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                present = {name.lower() for name, _ in headers}
                wanted = HEADERS | request_state.get(COLLECTED, {})
                message = {**message, "headers": headers + [item for item in wanted.items() if item[0] not in present]}
            await send(message)

        await app(scope, receive, send_with_headers)

    return handle
