"""Turn every error into a response: `application/problem+json` (RFC 9457), or `{"error": ...}` under /v2.

`type` is stable: `urn:maskloop:problem:SLUG`, with the slugs of `service/errors.py` and a few of HTTP itself.
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
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.errors import DatabaseUnwritable, MaskloopError, StorageUnwritable, names_only
from service.segmentation.pipeline import ClientDisconnected
from service.state import State
from service.storage.storage_faults import reason_of, storage_fault

log = structlog.stdlib.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
PROTOCOL = "/v2"
# Status, slug, title and detail; 499 is nginx's status if the client closed the connection.
CLIENT_DISCONNECTED = (499, "client-gone", "Client disconnected", "The connection was closed.")

INTERNAL_DETAIL = "The service has a fault; its log has the details. Please report it with that log."
REMEDIES = {
    404: "This path does not exist: see /docs for the paths that do.",
    405: "This path does not support this method: see /docs for those that it does.",
}


def add_problem_handlers(app: FastAPI) -> None:
    """Register the error handlers."""
    app.add_exception_handler(MaskloopError, _maskloop_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnected, _client_disconnected)
    app.add_exception_handler(ClientDisconnect, _client_disconnected)
    for kind in (OSError, DBAPIError):
        app.add_exception_handler(kind, _storage_error)
    app.add_exception_handler(Exception, _unexpected_error)


def problem(
    path: str, status: int, slug: str, title: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Return an error response in the format of the path's protocol."""
    body: dict[str, Any]
    if in_protocol(path):
        body, media_type = {"error": detail}, "application/json"
    else:
        body, media_type = problem_body(status, slug, title, detail, **more), MEDIA_TYPE
    return Response(json.dumps(body), status, headers=dict(headers or {}), media_type=media_type)


def in_protocol(path: str) -> bool:
    """Whether a path belongs to the Open Inference Protocol."""
    return path == PROTOCOL or path.startswith(f"{PROTOCOL}/")


def problem_body(status: int, slug: str, title: str, detail: str, **more: Any) -> dict[str, Any]:
    """Return the fields of a problem document."""
    return {"type": f"urn:maskloop:problem:{slug}", "title": title, "status": status, "detail": detail, **more}


def from_error(path: str, error: MaskloopError) -> Response:
    """Return the response for an error, with `Retry-After` if waiting helps."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return problem(path, error.status, error.slug, error.title, names_only(error.message), headers=headers)


async def _maskloop_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MaskloopError)  # noqa: S101 - registered for this type
    return from_error(request.scope["path"], error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type
    errors = [{"field": ".".join(str(part) for part in e["loc"]), "message": e["msg"]} for e in error.errors()]
    detail = "; ".join(f"{e['field']}: {e['message']}" for e in errors)
    return problem(request.scope["path"], 422, "invalid-request", "The request is not valid", detail, errors=errors)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
    status = HTTPStatus(error.status_code)
    slug = status.phrase.lower().replace(" ", "-")
    detail = REMEDIES.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _allowed_methods(request)
    return problem(request.scope["path"], error.status_code, slug, status.phrase, detail, headers=headers)


def _allowed_methods(request: Request) -> str:
    """List the methods of all routes of a path; FastAPI names only those of the first."""
    path = getattr(request.scope.get("route"), "path", None)
    methods = [route.methods or () for route in iter_route_contexts(request.app.routes) if route.path == path]
    return ", ".join(sorted({method for some in methods for method in some})) or "GET, HEAD"


async def _client_disconnected(request: Request, _error: Exception) -> Response:
    return problem(request.scope["path"], *CLIENT_DISCONNECTED)


async def _storage_error(request: Request, error: Exception) -> Response:
    state: State = request.state.maskloop
    fault = storage_fault(error, state.settings.data_dir)
    if fault is None:
        raise error
    log.warning("the storage failed", path=request.scope["path"], reason=reason_of(error))
    if isinstance(fault, StorageUnwritable) and not isinstance(fault, DatabaseUnwritable):
        state.data_folder.report(fault)
    return from_error(request.scope["path"], fault)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    log.error("unexpected error", path=request.scope["path"], error=repr(error))
    return problem(request.scope["path"], 500, MaskloopError.slug, MaskloopError.title, INTERNAL_DETAIL)
