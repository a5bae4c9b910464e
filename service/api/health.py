"""Probes and metrics, for machines. They are async and touch no disk: a busy pool of threads never makes them wait."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from service.api.auth import needs_key_from_afar
from service.api.deps import StateOf

router = APIRouter(tags=["health"])


class Ready(BaseModel):
    """What answers."""

    status: str = "ready"
    model: str
    provider: str
    error: str | None = Field(default=None, description="why another version, which should answer, could not be loaded")


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process runs."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "No model is ready"}})
async def readyz(state: StateOf) -> Ready:
    """A model is loaded and its probe has passed in this process."""
    loaded = state.slot.require()
    return Ready(model=loaded.version, provider=loaded.engine.provider, error=state.slot.error)


@router.get("/metrics", response_class=Response, dependencies=[needs_key_from_afar()])
async def metrics(state: StateOf) -> Response:
    """Prometheus text format."""
    return Response(state.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})
