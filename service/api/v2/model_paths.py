"""Routes of the Open Inference Protocol: most paths name a model, and optionally a version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request

from service.api.docs.problem_docs import Responses, problem_docs
from service.api.problems import PROTOCOL
from service.errors import MaskloopError, ModelNotFound, NoModel

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

VERSION_DOCS = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Version number, or the version of the bundle",
}

UNKNOWN = (ModelNotFound, NoModel)


def new_router(*dependencies: Any) -> APIRouter:
    """Create a router under /v2."""
    return APIRouter(prefix=PROTOCOL, dependencies=dependencies, tags=["open inference protocol"])


def error_docs(*errors: type[MaskloopError]) -> Responses:
    """Return the `responses` of a route under /v2 that may raise these errors."""
    return problem_docs(*errors, path=PROTOCOL)


def of_model(
    router: APIRouter, method: str, tail: str = "", *, docs: dict[str, Any] | None = None, **options: Any
) -> Callable[[Endpoint], Endpoint]:
    """Register an endpoint at /models/MODEL and at /models/MODEL/versions/VERSION, each followed by `tail`."""

    def register(endpoint: Endpoint) -> Endpoint:
        path, extra = "/models/{model}", docs or {}
        router.add_api_route(f"{path}{tail}", endpoint, methods=[method], openapi_extra=extra, **options)
        path, extra = (
            f"{path}/versions/{{version}}",
            extra | {"parameters": [VERSION_DOCS, *extra.get("parameters", [])]},
        )
        router.add_api_route(f"{path}{tail}", endpoint, methods=[method], openapi_extra=extra, **options)
        return endpoint

    return register


async def _version(request: Request) -> str | None:
    version: str | None = request.path_params.get("version")
    return version


Version = Annotated[str | None, Depends(_version)]
