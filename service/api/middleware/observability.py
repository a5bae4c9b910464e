"""Around every request: a name, one log line, its counts and, where they are sent somewhere, its trace."""

from __future__ import annotations

import time

import structlog
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.middleware.request_id import HEADER, request_id_of
from service.api.middleware.security_headers import SecurityHeaders
from service.keys.caller import Caller
from service.state import State
from service.tracing import Tracing

log = structlog.stdlib.get_logger(__name__)

# SegmentQuery every few seconds by machines: counted, and worth neither a line nor a trace.
QUIET = {"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"}
# `/?key=...` logs a browser in; a trace would contain the query.
UNTRACED = QUIET | {"/"}
# A client may call a method anything, and every label is kept for ever.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
TOO_MANY_REQUESTS = 429
LONGEST_PATH = 200


class ObservedApp(FastAPI):
    """FastAPI inside `Observe` and `SecurityHeaders`, which also see its response to an unexpected error."""

    def build_middleware_stack(self) -> ASGIApp:
        """All of FastAPI's layers, and ours around them."""
        return Observe(SecurityHeaders(super().build_middleware_stack()))


def telemetry(tracing: Tracing | None) -> TelemetryConfig:
    """Telemetry of FastAPI: one span per request. `RequestContext` adds the child spans; Prometheus has the counts."""
    return {
        "tracer_provider": tracing.provider if tracing else None,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        "exclude": lambda scope: scope["path"] in UNTRACED,
    }


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
        state: State = scope["state"]["maskloop"]
        request_id = request_id_of(scope)
        _name(state, scope, request_id)

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, request_id.encode())]}
            await send(message)

        state.metrics.requests_in_flight.inc()
        try:
            await self._app(scope, receive, watching)
        finally:
            state.metrics.requests_in_flight.dec()
            _record(state, scope, status, time.perf_counter() - begin)


def _name(state: State, scope: Scope, request_id: str) -> None:
    """Let every line that is logged on the way have the ids. The task ends with the request, and they with it."""
    if state.tracing is None or scope["path"] in UNTRACED:
        structlog.contextvars.bind_contextvars(request_id=request_id)
        return
    trace = state.tracing.current_span()
    trace.set_attributes({"http.request.header.x-request-id": [request_id]})
    structlog.contextvars.bind_contextvars(request_id=request_id, **trace.ids)


def _record(state: State, scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "none")
    method = scope["method"] if scope["method"] in METHODS else "other"
    state.metrics.requests.labels(method, route, status).inc()
    state.metrics.request_seconds.labels(route).observe(seconds)
    if status == TOO_MANY_REQUESTS and route.endswith(("/segment", "/segment/batch", "/infer")):
        state.metrics.rejected.labels("rate_limited").inc()
    path = scope["path"]
    if path not in QUIET:
        caller: Caller | None = scope["state"].get("caller")
        more = {"key": caller.name} if caller is not None and caller.name else {}
        # Percent signs are undone in it: what could end the line is shown as what it is.
        shown = path[:LONGEST_PATH] if path.isprintable() else repr(path[:LONGEST_PATH])
        ms = round(seconds * 1000, 1)
        log.info("request", method=scope["method"], path=shown, status=status, ms=ms, **more)
