"""`/v2/models/MODEL`: metadata, configuration, readiness and statistics of models."""

from __future__ import annotations

from typing import Any

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.v2.model_paths import UNKNOWN, Version, error_docs, new_router, of_model
from service.errors import BundleInvalid, StorageFailed, Unavailable
from service.open_inference.model_metadata import model_config, model_metadata
from service.state import State

router = new_router()

ANY_KEY = [needs()]
READ = error_docs(*UNKNOWN, BundleInvalid, StorageFailed)


class TensorOut(BaseModel):
    """An input or output; -1 means any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadataOut(BaseModel):
    """Metadata of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorOut]
    outputs: list[TensorOut]


class ReadyOut(BaseModel):
    """Readiness of a model."""

    name: str
    ready: bool


@router.get("/models", dependencies=ANY_KEY)
def models(state: StateOf) -> dict[str, list[str]]:
    """List the names of all models."""
    return {"models": state.model_repository.models()}


@router.get("/models/stats", dependencies=ANY_KEY)
async def all_statistics(state: StateOf) -> dict[str, Any]:
    """Get the statistics of all models."""
    return state.statistics.to_json(await run_in_threadpool(state.model_repository.loaded_versions), None, None)


@of_model(router, "GET", dependencies=ANY_KEY, responses=READ)
def metadata(state: StateOf, model: str, version: Version) -> ModelMetadataOut:
    """Get the inputs, outputs and versions of a model."""
    found = state.model_repository.find(model, version)
    return ModelMetadataOut(**model_metadata(found, state.models.manifest(found.entry.row.version)))


@of_model(router, "GET", "/config", dependencies=ANY_KEY, responses=READ)
def config(state: StateOf, model: str, version: Version) -> dict[str, Any]:
    """Get the configuration of a model in Triton's format, with its classes."""
    found = state.model_repository.find(model, version)
    manifest = state.models.manifest(found.entry.row.version)
    return model_config(found, manifest, state.models.classes.table(manifest))


@of_model(router, "GET", "/ready", responses=error_docs(*UNKNOWN, Unavailable))
async def ready(state: StateOf, model: str, version: Version) -> ReadyOut:
    """Check whether a model is loaded."""
    if state.model_repository.loaded(model, version) is None:
        await run_in_threadpool(_require_loaded, state, model, version)
    return ReadyOut(name=model, ready=True)


@of_model(router, "GET", "/stats", dependencies=ANY_KEY, responses=error_docs(*UNKNOWN))
async def statistics(state: StateOf, model: str, version: Version) -> dict[str, Any]:
    """Get the request statistics of a model."""
    number, versions = await run_in_threadpool(_loaded_versions, state, model, version)
    return state.statistics.to_json(versions, model, number)


def _require_loaded(state: State, model: str, version: str | None) -> None:
    found = state.model_repository.find(model, version)
    if not state.model_repository.is_ready(found.entry):
        raise Unavailable(
            f"Version {found.entry.number} of {model} is not loaded: POST /v2/repository/models/{model}/load, or "
            "send it an inference request, which loads it."
        )


def _loaded_versions(state: State, model: str, version: str | None) -> tuple[int | None, list[tuple[str, int]]]:
    entry = state.model_repository.find(model, version).entry
    return None if version is None else entry.number, state.model_repository.loaded_versions(model)
