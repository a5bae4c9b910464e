"""Reject NUL characters in URLs: PostgreSQL raises an error for them, and SQLite finds nothing."""

from __future__ import annotations

from fastapi import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import problem

IN_PATH = "This path contains a NUL character (%00) and does not exist: send the id as it was given."
IN_QUERY = "The query contains a NUL character (%00): remove it."


def reject_nul(app: ASGIApp) -> ASGIApp:
    """ASGI middleware: answer 404 for a path with NUL, 422 for a query with NUL."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        rejection = _rejection(scope) if scope["type"] == "http" else None
        await (rejection or app)(scope, receive, send)

    return handle


def _rejection(scope: Scope) -> Response | None:
    path: str = scope["path"]
    if "\0" in path:
        return problem(path, 404, "not-found", "Not Found", IN_PATH)
    # Percent-encoded, or raw from a client that does not encode.
    if b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
        errors = [{"field": "query", "message": IN_QUERY}]
        return problem(path, 422, "invalid-request", "The request is not valid", IN_QUERY, errors=errors)
    return None
