"""What the protocol asks of a server as a whole, and the extensions of others that this service leaves out."""

from __future__ import annotations

from fastapi import Request
from pydantic import BaseModel

from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.v2.model_paths import error_docs, new_router
from service.errors import NoModel, NotSupported
from service.open_inference.model_metadata import server_metadata

router = new_router()

# Probes are free.
ANY_KEY = [needs()]


class ServerOut(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


@router.get("", dependencies=ANY_KEY)
async def metadata(request: Request) -> ServerOut:
    """What the server is and can do."""
    return ServerOut(**server_metadata(request.app.version))


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """The process runs."""
    return {"live": True}


@router.get("/health/ready", responses=error_docs(NoModel))
async def ready(state: StateOf) -> dict[str, bool]:
    """A model is loaded and its probe has passed in this process."""
    state.active_model.require()
    return {"ready": True}


BOTH = ["GET", "POST"]


@router.api_route("/systemsharedmemory/{rest:path}", methods=BOTH, include_in_schema=False, dependencies=ANY_KEY)
@router.api_route("/cudasharedmemory/{rest:path}", methods=BOTH, include_in_schema=False, dependencies=ANY_KEY)
async def shared_memory() -> None:
    """Left out: client and server may be on two machines."""
    raise NotSupported("Shared memory is not supported: send tensors in binary form, behind the JSON.")


@router.api_route("/trace/setting", methods=BOTH, include_in_schema=False, dependencies=ANY_KEY)
@router.api_route("/models/{model}/trace/setting", methods=BOTH, include_in_schema=False, dependencies=ANY_KEY)
async def tracing() -> None:
    """Left out: who may send requests does not decide what is written about them."""
    raise NotSupported("Tracing is not supported here: the settings of the service say what is written.")


@router.api_route("/logging", methods=BOTH, include_in_schema=False, dependencies=ANY_KEY)
async def logging() -> None:
    """Left out, for the same reason."""
    raise NotSupported("Changing the log is not supported here: set MASKLOOP_LOG_LEVEL and start the service again.")
