"""`/v2/models/MODEL`: what a model is, whether it is ready, and its statistics."""

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

# Readiness alone is free, as probes are.
ANY_KEY = [needs()]
READ = error_docs(*UNKNOWN, BundleInvalid, StorageFailed)


class TensorOut(BaseModel):
    """An input or output; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelOut(BaseModel):
    """A model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorOut]
    outputs: list[TensorOut]


class ReadyOut(BaseModel):
    """A model that answers."""

    name: str
    ready: bool


@router.get("/models", dependencies=ANY_KEY)
def models(state: StateOf) -> dict[str, list[str]]:
    """The names of all models."""
    return {"models": state.model_repository.models()}


@router.get("/models/stats", dependencies=ANY_KEY)
async def all_statistics(state: StateOf) -> dict[str, Any]:
    """The statistics of all models."""
    return state.statistics.out(await run_in_threadpool(state.model_repository.resident), None, None)


@of_model(router, "GET", dependencies=ANY_KEY, responses=READ)
def metadata(state: StateOf, model: str, version: Version) -> ModelOut:
    """What a model takes and gives, and its versions."""
    found = state.model_repository.find(model, version)
    return ModelOut(**model_metadata(found, state.models.bundle(found.entry.row.version).manifest))


@of_model(router, "GET", "/config", dependencies=ANY_KEY, responses=READ)
def config(state: StateOf, model: str, version: Version) -> dict[str, Any]:
    """A model's configuration in Triton's words, with its classes."""
    found = state.model_repository.find(model, version)
    return model_config(found, state.models.bundle(found.entry.row.version).manifest)


@of_model(router, "GET", "/ready", responses=error_docs(*UNKNOWN, Unavailable))
async def ready(state: StateOf, model: str, version: Version) -> ReadyOut:
    """Whether a model is loaded."""
    if state.model_repository.at_hand(model, version) is None:
        await run_in_threadpool(_require, state, model, version)
    return ReadyOut(name=model, ready=True)


@of_model(router, "GET", "/stats", dependencies=ANY_KEY, responses=error_docs(*UNKNOWN))
async def statistics(state: StateOf, model: str, version: Version) -> dict[str, Any]:
    """What became of a model's requests."""
    number, resident = await run_in_threadpool(_resident, state, model, version)
    return state.statistics.out(resident, model, number)


def _require(state: State, model: str, version: str | None) -> None:
    found = state.model_repository.find(model, version)
    if not state.model_repository.is_ready(found.entry):
        raise Unavailable(
            f"Version {found.entry.number} of {model} is not loaded: POST /v2/repository/models/{model}/load, or send "
            "it a request for inference, which loads it."
        )


def _resident(state: State, model: str, version: str | None) -> tuple[int | None, list[tuple[str, int]]]:
    entry = state.model_repository.find(model, version).entry
    return None if version is None else entry.number, state.model_repository.resident(model)
