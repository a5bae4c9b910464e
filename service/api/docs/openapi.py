"""Serve the OpenAPI document and Swagger UI at /docs, with scripts from an installed package instead of a CDN."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

PAGE = Path(__file__).parents[2] / "web" / "docs"
# Swagger UI writes inline styles; it loads and requests nothing from other hosts.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


class _Static(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=3600"
        return response


def add_docs(app: FastAPI) -> None:
    """Add /openapi.json and /docs to an app."""
    app.add_api_route("/openapi.json", _document, include_in_schema=False)
    app.add_api_route("/docs", _page, include_in_schema=False)
    app.mount("/docs/page", _Static(directory=PAGE), name="docs-page")
    app.mount("/docs/swagger", _Static(directory=_swagger()), name="docs-swagger")


# Not async, unlike FastAPI's own: building the document takes long enough to delay health checks.
def _document(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())


async def _page() -> FileResponse:
    return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": POLICY})


def _swagger() -> Path:
    spec = find_spec("fastapi_offline")
    assert spec is not None  # noqa: S101 - a dependency
    assert spec.origin is not None  # noqa: S101
    return Path(spec.origin).parent / "static"
