"""The HTTP application, as a list."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from service.api import batch, health, images, models, runs, segment
from service.api.body_limit import MULTIPART_SLACK, PART_SLACK, BodyLimit
from service.api.cors import add_cors
from service.api.docs import add_docs
from service.api.guarded import document_refusals
from service.api.observe import ObservedApp, telemetry
from service.api.open_inference import infer, metadata, repository, server
from service.api.open_inference.body import largest_body, takes_tensors
from service.api.problems import add_problem_handlers
from service.api.shield import Shield
from service.settings import Settings, open_telemetry_variables
from service.state import open_state
from service.tracing import Tracing, open_tracing


def create_app(settings: Settings) -> FastAPI:
    """The application. Nothing is opened before its lifespan begins."""
    tracing = open_tracing(open_telemetry_variables())
    app = ObservedApp(
        title="Maskloop",
        summary="Semantic segmentation over HTTP that keeps getting better.",
        lifespan=_lifespan(settings, tracing),
        telemetry=telemetry(tracing),
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(segment.router)
    app.include_router(batch.router)
    app.include_router(images.router)
    app.include_router(runs.router)
    app.include_router(models.router)
    app.include_router(health.router)
    for part in (server, repository, infer, metadata):
        app.include_router(part.router)
    app.add_api_route("/", _front, include_in_schema=False)
    add_docs(app)
    document_refusals(app)
    add_problem_handlers(app)
    # The last added is the outermost.
    app.add_middleware(BodyLimit, limit=_body_limit(settings))
    add_cors(app, settings)
    app.add_middleware(Shield)
    return app


def _lifespan(settings: Settings, tracing: Tracing | None) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        state = open_state(settings, tracing)
        try:
            _empty(settings.tmp_dir)
            state.models.ensure_start_model()
            state.keys.start()
            state.slot.start()
            yield {"maskloop": state}
        finally:
            await run_in_threadpool(state.close)

    return lifespan


def _empty(folder: Path) -> None:
    """What a process that was killed left behind goes; the worker puts nothing here."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)


def _body_limit(settings: Settings) -> Callable[[str], int]:
    largest = {
        "/v1/models": settings.max_bundle_bytes + MULTIPART_SLACK,
        "/v1/segment/batch": settings.max_batch_bytes + settings.max_batch_images * PART_SLACK,
    }

    def limit(path: str) -> int:
        if takes_tensors(path):
            return largest_body(settings)
        return largest.get(path, settings.max_image_bytes + MULTIPART_SLACK)

    return limit


async def _front() -> RedirectResponse:
    return RedirectResponse("/docs")
