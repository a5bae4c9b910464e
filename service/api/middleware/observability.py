"""Observe every request: request id, log line, metrics and, if tracing is on, a trace."""

from __future__ import annotations

import re
import secrets
import time

import structlog
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.middleware.security_headers import complete_headers
from service.keys.caller import Caller
from service.state import State
from service.tracing import Tracing

log = structlog.stdlib.get_logger(__name__)

HEADER = b"x-request-id"
# Request ids of clients must not break or flood a log line.
VALID_ID = re.compile(rb"[A-Za-z0-9._:/+=@~-]{1,128}")
# Health checks and scrapes, every few seconds: counted, but neither logged nor traced.
QUIET = {"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"}
# `/?key=...` signs a browser in; a trace would contain the key.
UNTRACED = QUIET | {"/"}
# Other methods share one label: clients can invent any number of them.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
TOO_MANY_REQUESTS = 429
MAX_LOGGED_PATH = 200


class ObservedApp(FastAPI):
    """FastAPI with two outermost middlewares, which also see the 500 response to an unexpected error."""

    def build_middleware_stack(self) -> ASGIApp:
        """Build the stack."""
        return observe(complete_headers(super().build_middleware_stack()))


def telemetry(tracing: Tracing | None) -> TelemetryConfig:
    """Configure FastAPI to create one span per request; `RequestContext` adds a child per stage."""
    return {
        "tracer_provider": tracing.provider if tracing else None,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        "exclude": lambda scope: scope["path"] in UNTRACED,
    }


def observe(app: ASGIApp) -> ASGIApp:
    """ASGI middleware: log and count requests. Metrics are labelled by route template, not by path."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500
        state: State = scope["state"]["maskloop"]
        request_id = request_id_of(scope)
        _bind_ids(state, scope, request_id)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, request_id.encode())]}
            await send(message)

        state.metrics.requests_in_flight.inc()
        try:
            await app(scope, receive, send_with_id)
        finally:
            state.metrics.requests_in_flight.dec()
            _record(state, scope, status, time.perf_counter() - begin)

    return handle


def request_id_of(scope: Scope) -> str:
    """Return the request's `X-Request-Id` if it is valid, otherwise a new one."""
    sent = next((value for name, value in scope["headers"] if name == HEADER), b"")
    return sent.decode() if VALID_ID.fullmatch(sent) else secrets.token_hex(16)


def _bind_ids(state: State, scope: Scope, request_id: str) -> None:
    if state.tracing is None or scope["path"] in UNTRACED:
        structlog.contextvars.bind_contextvars(request_id=request_id)
        return
    trace = state.tracing.current_span()
    trace.span.set_attributes({"http.request.header.x-request-id": [request_id]})
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
        # The path is percent-decoded: control characters are shown escaped.
        shown = path[:MAX_LOGGED_PATH] if path.isprintable() else repr(path[:MAX_LOGGED_PATH])
        ms = round(seconds * 1000, 1)
        log.info("request", method=scope["method"], path=shown, status=status, ms=ms, **more)
