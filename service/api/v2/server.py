"""`/v2`: metadata and health of the server, and the protocol extensions that it does not support."""

from __future__ import annotations

from fastapi import Request
from pydantic import BaseModel

from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.v2.model_paths import error_docs, new_router
from service.errors import NoModel, NotSupported

router = new_router()

# Health checks need no key.
ANY_KEY = [needs()]
EXTENSIONS = [
    *("binary_tensor_data", "model_configuration", "model_repository", "parameters", "schedule_policy", "statistics")
]


class ServerOut(BaseModel):
    """Metadata of the server."""

    name: str
    version: str
    extensions: list[str]


@router.get("", dependencies=ANY_KEY)
async def metadata(request: Request) -> ServerOut:
    """Get the name, version and extensions of the server."""
    return ServerOut(name="maskloop", version=request.app.version, extensions=EXTENSIONS)


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Liveness: the process runs."""
    return {"live": True}


@router.get("/health/ready", responses=error_docs(NoModel))
async def ready(state: StateOf) -> dict[str, bool]:
    """Readiness: a model is loaded and its probe passed in this process."""
    state.active_model.require()
    return {"ready": True}


GET_POST = ["GET", "POST"]


@router.api_route("/systemsharedmemory/{rest:path}", methods=GET_POST, include_in_schema=False, dependencies=ANY_KEY)
@router.api_route("/cudasharedmemory/{rest:path}", methods=GET_POST, include_in_schema=False, dependencies=ANY_KEY)
async def shared_memory() -> None:
    """Not supported: client and server may be on different machines."""
    raise NotSupported("Shared memory is not supported: send tensors in binary form, after the JSON.")


@router.api_route("/trace/setting", methods=GET_POST, include_in_schema=False, dependencies=ANY_KEY)
@router.api_route("/models/{model}/trace/setting", methods=GET_POST, include_in_schema=False, dependencies=ANY_KEY)
async def tracing() -> None:
    """Not supported: clients do not change what the service records."""
    raise NotSupported("Changing trace settings is not supported: set the OTEL_* variables and restart the service.")


@router.api_route("/logging", methods=GET_POST, include_in_schema=False, dependencies=ANY_KEY)
async def logging() -> None:
    """Not supported, for the same reason."""
    raise NotSupported("Changing log settings is not supported: set MASKLOOP_LOG_LEVEL and restart the service.")
