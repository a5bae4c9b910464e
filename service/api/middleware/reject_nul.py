"""NUL characters in an address: no id and no value holds one, and PostgreSQL takes none, not even to look for it.

SQLite would find nothing. So that a request means the same whatever the database is, it ends here, for all calls.
"""

from __future__ import annotations

from fastapi import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import problem

IN_PATH = "There is nothing at this path, which holds a NUL character (%00): send the id as it was given."
IN_QUERY = "A value behind the question mark holds a NUL character (%00): leave it out."


class RejectNul:
    """ASGI middleware: 404 for a path with NUL, 422 for a query with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        app = _refusal(scope) if scope["type"] == "http" else None
        await (app or self._app)(scope, receive, send)


def _refusal(scope: Scope) -> Response | None:
    path: str = scope["path"]
    if "\0" in path:
        return problem(path, 404, "not-found", "Not Found", IN_PATH)
    # As it was sent, or as a client that knows no percent signs sends it.
    if b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
        errors = [{"field": "query", "message": IN_QUERY}]
        return problem(path, 422, "invalid-request", "The request is not valid", IN_QUERY, errors=errors)
    return None
