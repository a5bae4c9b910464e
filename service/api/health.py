"""Health checks and metrics. The checks are async and read no disk, so that busy threads never delay them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, Field

from service.api.auth import authorise_unless_local
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import problem_docs
from service.errors import NoModel, names_only

router = APIRouter(tags=["health"])


class Ready(BaseModel):
    """The active model."""

    status: str = "ready"
    model: str
    provider: str
    error: str | None = Field(default=None, description="why a newly activated version could not be loaded")
    storage: str | None = Field(
        default=None, description="why the data folder cannot be written: images are segmented, but nothing is kept"
    )


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Liveness: the process runs."""
    return {"status": "alive"}


@router.get("/readyz", responses=problem_docs(NoModel))
async def readyz(state: StateOf) -> Ready:
    """Readiness: a model is loaded and its probe passed in this process."""
    loaded, problem = state.active_model.require(), state.data_folder.problem
    return Ready(
        model=loaded.version,
        provider=loaded.engine.provider,
        error=state.active_model.error,
        storage=names_only(problem) if problem else None,
    )


METRICS_DOCS: dict[int | str, dict[str, Any]] = {
    200: {"content": {name: {"schema": {"type": "string"}} for name in ("text/plain", "application/openmetrics-text")}}
}


@router.get("/metrics", response_class=Response, dependencies=[Depends(authorise_unless_local)], responses=METRICS_DOCS)
async def metrics(request: Request, state: StateOf) -> Response:
    """Metrics in Prometheus text format, or OpenMetrics by `Accept`."""
    await state.database_collector.refresh()
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(state.metrics.registry), headers={"Content-Type": content_type})
