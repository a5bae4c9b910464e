"""`/v2/repository`: which models are loaded, and loading and unloading."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.v2.model_paths import UNKNOWN, error_docs, new_router
from service.api.v2.tensor_body import receive
from service.errors import BadInput, BodyTooSlow, Conflict, ModelLoading, ModelNotServable, Unavailable
from service.open_inference import repository_requests

router = new_router(needs())

ADMIN = [needs("admin")]

BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


class IndexEntryOut(BaseModel):
    """A version of a model. States: READY, LOADING, UNAVAILABLE."""

    name: str
    version: str
    state: str
    reason: str


@router.post("/repository/index", openapi_extra=BODY, responses=error_docs(BadInput, BodyTooSlow))
async def index(state: StateOf, request: Request) -> list[IndexEntryOut]:
    """List every version of every model."""
    ready_only = repository_requests.ready_only(await receive(request, state))
    listed = await run_in_threadpool(lambda: state.model_repository.index(ready_only=ready_only))
    return [IndexEntryOut(**entry) for entry in listed]


@router.post(
    "/repository/models/{model}/load",
    openapi_extra=BODY,
    response_class=Response,
    dependencies=ADMIN,
    responses=error_docs(*UNKNOWN, BadInput, BodyTooSlow, ModelNotServable, ModelLoading, Unavailable),
)
async def load(state: StateOf, request: Request, model: str) -> Response:
    """Load a version beside the active one; it stays until others push it out. Activating is another thing."""
    version = repository_requests.load_version(await receive(request, state))
    await run_in_threadpool(state.model_repository.lease, model, version)
    return Response()


@router.post(
    "/repository/models/{model}/unload",
    openapi_extra=BODY,
    response_class=Response,
    dependencies=ADMIN,
    responses=error_docs(*UNKNOWN, BadInput, BodyTooSlow, Conflict),
)
async def unload(state: StateOf, request: Request, model: str) -> Response:
    """Give the memory of a model back, which is not the active one."""
    version = repository_requests.unload_version(await receive(request, state))
    await run_in_threadpool(state.model_repository.unload, model, version)
    return Response()
