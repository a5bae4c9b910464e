"""Errors to HTTP: RFC 9457 `application/problem+json` for every error, whoever raised it.

`type` is stable (`urn:maskloop:problem:SLUG`, the slugs of `service/errors.py` and a few for HTTP itself); `detail` is
for a person and says what to do. Under /v2, whose clients read nothing else, every error is `{"error": detail}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.errors import MaskloopError, names_only
from service.segmentation.pipeline import ClientDisconnected

log = structlog.stdlib.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
# The Open Inference Protocol.
PROTOCOL = "/v2"
# Nobody reads it; nginx made this number the custom for "the client closed the connection".
CLIENT_CLOSED_REQUEST = 499

FAULT = "The service has a fault; its log says more. Please report it with that log."
# What a person may do about the errors that HTTP itself knows.
REMEDIES = {
    404: "There is nothing at this path: /docs lists what there is.",
    405: "This path does not take this method: /docs lists what it takes.",
}


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of an app leave as a problem."""
    app.add_exception_handler(MaskloopError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnected, _gone)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


def problem(
    path: str,
    status: int,
    slug: str,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """One problem as a response, in the form that clients of its path read."""
    body: dict[str, Any]
    if path == PROTOCOL or path.startswith(f"{PROTOCOL}/"):
        body, media_type = {"error": detail}, "application/json"
    else:
        body, media_type = problem_body(status, slug, title, detail, **more), MEDIA_TYPE
    return Response(json.dumps(body), status, headers=dict(headers or {}), media_type=media_type)


def problem_body(status: int, slug: str, title: str, detail: str, **more: Any) -> dict[str, Any]:
    """What a problem says."""
    return {"type": f"urn:maskloop:problem:{slug}", "title": title, "status": status, "detail": detail, **more}


def from_error(path: str, error: MaskloopError) -> Response:
    """A domain error as a response, with `Retry-After` where waiting helps."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return problem(path, error.status, error.slug, error.title, names_only(error.message), headers=headers)


async def _domain(request: Request, error: Exception) -> Response:
    assert isinstance(error, MaskloopError)  # noqa: S101 - what it is registered for
    return from_error(request.scope["path"], error)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
    errors = [{"field": ".".join(str(part) for part in e["loc"]), "message": e["msg"]} for e in error.errors()]
    detail = "; ".join(f"{e['field']}: {e['message']}" for e in errors)
    return problem(request.scope["path"], 422, "invalid-request", "The request is not valid", detail, errors=errors)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    status = HTTPStatus(error.status_code)
    slug = status.phrase.lower().replace(" ", "-")
    detail = REMEDIES.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _allowed(request)
    return problem(request.scope["path"], error.status_code, slug, status.phrase, detail, headers=headers)


def _allowed(request: Request) -> str:
    """What a path takes. FastAPI names the methods of its first route alone, and static files none."""
    path = getattr(request.scope.get("route"), "path", None)
    methods = [route.methods or () for route in iter_route_contexts(request.app.routes) if route.path == path]
    return ", ".join(sorted({method for some in methods for method in some})) or "GET, HEAD"


async def _gone(request: Request, _error: Exception) -> Response:
    detail = "The connection was closed."
    return problem(request.scope["path"], CLIENT_CLOSED_REQUEST, "client-gone", "The client has gone", detail)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("unexpected error", path=request.scope["path"], error=repr(error))
    return problem(request.scope["path"], 500, MaskloopError.slug, MaskloopError.title, FAULT)
