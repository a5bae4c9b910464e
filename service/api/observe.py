"""One log line and one count for every request."""

from __future__ import annotations

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.keys.caller import Caller
from service.state import State

log = structlog.stdlib.get_logger(__name__)

# Asked every few seconds by machines: counted, and not worth a line.
QUIET = {"/livez", "/readyz", "/metrics"}
# A client may call a method anything, and every label is kept for ever.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}


class Observe:
    """ASGI middleware: measures requests by route template, never by path, so that ids make no labels."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, watching the status."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            _record(scope, status, time.perf_counter() - begin)


def _record(scope: Scope, status: int, seconds: float) -> None:
    state: State = scope["state"]["maskloop"]
    route = getattr(scope.get("route"), "path", "none")
    method = scope["method"] if scope["method"] in METHODS else "other"
    state.metrics.requests.labels(method, route, status).inc()
    state.metrics.request_seconds.labels(route).observe(seconds)
    if scope["path"] not in QUIET:
        caller: Caller | None = scope["state"].get("caller")
        more = {"key": caller.name} if caller is not None and caller.name else {}
        ms = round(seconds * 1000, 1)
        log.info("request", method=scope["method"], path=scope["path"], status=status, ms=ms, **more)
