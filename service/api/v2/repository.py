"""`/v2/repository`: list, load and unload model versions."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.v2.model_paths import UNKNOWN, error_docs, new_router
from service.api.v2.tensor_body import receive
from service.errors import (
    BadInput,
    BodyTooSlow,
    Conflict,
    EncodingUnsupported,
    ModelLoading,
    ModelNotServable,
    Unavailable,
)
from service.open_inference import json_body
from service.open_inference.parameters import flag, parameters_of
from service.state import State

router = new_router(needs())

ADMIN = [needs("admin")]

BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


class IndexEntryOut(BaseModel):
    """A version of a model. `state` is READY, LOADING or UNAVAILABLE."""

    name: str
    version: str
    state: str
    reason: str


@router.post("/repository/index", openapi_extra=BODY, responses=error_docs(BadInput, BodyTooSlow, EncodingUnsupported))
async def index(state: StateOf, request: Request) -> list[IndexEntryOut]:
    """List every version of every model."""
    ready_only = flag(await _json(request, state), "ready", default=False)
    listed = await run_in_threadpool(lambda: state.model_repository.index(ready_only=ready_only))
    return [IndexEntryOut(**entry) for entry in listed]


@router.post(
    "/repository/models/{model}/load",
    openapi_extra=BODY,
    response_class=Response,
    dependencies=ADMIN,
    responses=error_docs(
        *UNKNOWN, BadInput, BodyTooSlow, EncodingUnsupported, ModelNotServable, ModelLoading, Unavailable
    ),
)
async def load(state: StateOf, request: Request, model: str) -> Response:
    """Load a version into the cache without activating it; later loads may evict it.

    The parameter `version` names the version; by default the active one, or the newest ready one of this model.
    """
    parameters = parameters_of(await _json(request, state), "the request")
    if parameters.get("config") is not None or any(name.startswith("file:") for name in parameters):
        raise BadInput(
            "`load` does not accept a configuration or files, because they would bypass the checks of a bundle: "
            "upload a bundle (POST /v1/models) and activate it."
        )
    await run_in_threadpool(state.model_repository.lease, model, _version(parameters))
    return Response()


@router.post(
    "/repository/models/{model}/unload",
    openapi_extra=BODY,
    response_class=Response,
    dependencies=ADMIN,
    responses=error_docs(*UNKNOWN, BadInput, BodyTooSlow, EncodingUnsupported, Conflict),
)
async def unload(state: StateOf, request: Request, model: str) -> Response:
    """Unload a version other than the active one; without the parameter `version`, all versions of the model."""
    parameters = parameters_of(await _json(request, state), "the request")
    # Validated only: no model depends on another.
    flag(parameters, "unload_dependents", default=False)
    await run_in_threadpool(state.model_repository.unload, model, _version(parameters))
    return Response()


async def _json(request: Request, state: State) -> dict[str, Any]:
    body = await receive(request, state)
    return json_body.read(body) if body.strip() else {}


def _version(parameters: dict[str, Any]) -> str | None:
    version = parameters.get("version")
    if version is None or isinstance(version, str):
        return version
    raise BadInput("Parameter `version` must be a string.")
