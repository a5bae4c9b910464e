"""Assemble the HTTP application: routes, documentation, error handlers, middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from starlette.middleware.cors import CORSMiddleware

from service.api import health
from service.api.auth import log_in
from service.api.dependencies import StateOf
from service.api.docs.openapi import add_docs
from service.api.docs.problem_docs import document_errors
from service.api.middleware.body_limit import MULTIPART_SLACK, PART_SLACK, BodyLimit
from service.api.middleware.decompress_body import decompress_body
from service.api.middleware.observability import ObservedApp, telemetry
from service.api.middleware.reject_nul import reject_nul
from service.api.problems import PROTOCOL, add_problem_handlers
from service.api.v1 import (
    accept_mask,
    classes,
    drift,
    images,
    images_batch,
    imports,
    label_export,
    models,
    provenance,
    releases,
    retention,
    run_records,
    runs,
    segment,
    segment_batch,
)
from service.api.v2 import infer, model_routes, repository, server
from service.api.v2.tensor_body import JSON_SLACK, largest_body, takes_tensors
from service.settings import Settings, open_telemetry_variables
from service.state import State, start_state
from service.tracing import open_tracing

# Response headers that pages of MASKLOOP_CORS_ORIGINS may read.
EXPOSED_HEADERS = [
    "ETag",
    "Inference-Header-Content-Length",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Classes-Version",
    "X-Confidence-Mean",
    "X-Image-Error",
    "X-Image-Id",
    "X-Image-Orientation",
    "X-Image-Skipped",
    "X-Image-Ignored",
    "X-Image-Warning",
    "X-Mask-Scale",
    "X-Model-Precision",
    "X-Model-Version",
    "X-Request-Id",
]


def create_app(settings: Settings, state: State | None = None) -> FastAPI:
    """Create the application. Its lifespan opens the `state`, unless given, and closes it on shutdown."""
    tracing = state.tracing if state else open_tracing(open_telemetry_variables())
    app = ObservedApp(
        title="Maskloop",
        version=_version(),
        summary="Semantic segmentation over HTTP that keeps getting better.",
        lifespan=_lifespan(lambda: state or start_state(settings, tracing)),
        telemetry=telemetry(tracing),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(segment.router)
    app.include_router(segment_batch.router)
    # Before `images`, whose paths include every /v1/images/ID: a wrong method gets the right `Allow`.
    app.include_router(images_batch.router)
    app.include_router(images.router)
    app.include_router(imports.router)
    app.include_router(label_export.router)
    app.include_router(accept_mask.router)
    app.include_router(runs.router)
    app.include_router(run_records.router)
    app.include_router(drift.router)
    app.include_router(releases.router)
    app.include_router(classes.router)
    app.include_router(models.router)
    app.include_router(provenance.router)
    app.include_router(retention.router)
    app.include_router(health.router)
    for part in (server, repository, infer, model_routes):
        app.include_router(part.router)
    app.add_api_route("/", _index, include_in_schema=False)
    add_docs(app)
    document_errors(app)
    add_problem_handlers(app)
    # The middleware added last is the outermost.
    app.add_middleware(reject_nul)
    app.add_middleware(BodyLimit, limit=_body_limit(settings))
    app.add_middleware(decompress_body)
    if settings.cors_origins:
        # Pages send a key; browsers send no cookies.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    return app


def _version() -> str:
    try:
        return version("maskloop")
    except PackageNotFoundError:
        return "unknown"


def _lifespan(get_state: Callable[[], State]) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        state = get_state()
        try:
            yield {"maskloop": state}
        finally:
            await run_in_threadpool(state.close)

    return lifespan


def _body_limit(settings: Settings) -> Callable[[str], int]:
    largest = {
        "/v1/models": settings.max_bundle_bytes + MULTIPART_SLACK,
        "/v1/imports": settings.max_import_bytes + MULTIPART_SLACK,
        "/v1/images/batch": settings.max_batch_bytes + settings.max_batch_images * PART_SLACK,
        "/v1/segment/batch": settings.max_batch_bytes + settings.max_batch_images * PART_SLACK,
    }

    def limit(path: str) -> int:
        if path.startswith(PROTOCOL):
            return largest_body(settings) if takes_tensors(path) else JSON_SLACK
        return largest.get(path, settings.max_image_bytes + MULTIPART_SLACK)

    return limit


async def _index(request: Request, state: StateOf, key: str | None = None) -> Response:
    return RedirectResponse("/docs") if key is None else log_in(request, state, key)
