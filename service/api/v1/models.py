"""`/v1/models`: list, upload, activate and roll back model versions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from service.api.auth import caller_name, needs
from service.api.dependencies import StateOf, upload_docs
from service.api.docs.problem_docs import problem_docs
from service.api.forms import upload_file
from service.api.v1.activation_wait import DEFAULT_WAIT_S, WaitS, answer_when_serving, not_yet_docs
from service.errors import (
    BadInput,
    BundleInvalid,
    EncodingUnsupported,
    ModelNotFound,
    ModelNotServable,
    NoModel,
    NotDeletable,
    NothingToRollBack,
    ReasonMissing,
    StorageFailed,
    Unavailable,
)
from service.models.bundle import Manifest
from service.releases.transitions import MAX_REASON
from service.state import State
from service.storage.deletion_columns import DeletionReason
from service.storage.tables import Activation, Model, ModelState

# Any valid key may read models: clients that segment need the classes.
router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[needs()])


class ModelOut(BaseModel):
    """A model version."""

    model_config = ConfigDict(from_attributes=True)

    version: str
    name: str
    state: ModelState
    error: str | None = Field(description="why it failed, or was rejected or withdrawn")
    parent: str | None = Field(description="the version from which training started")
    run_id: str | None = Field(description="the run that trained it")
    miou: float | None = Field(
        description="0..1, over the classes in labels or masks, as the gate measured it last; before, from its manifest"
    )
    created_at: datetime
    serving: bool = Field(default=False, description="this process serves it")
    desired: bool = Field(default=False, description="it was activated last; serving processes follow within a second")
    classes_version: int | None = Field(
        description="version of the class list by whose names its classes are known; null: the present one"
    )
    bytes: int | None = Field(description="size of its files; null: not measured yet")
    deleted_at: datetime | None = Field(description="time when it was deleted; its record stays")
    deletion_reason: DeletionReason | None = Field(description="requested, or the limit of retention: age or bytes")


class ModelsOut(BaseModel):
    """All versions, newest first."""

    models: list[ModelOut]
    serving: str | None
    desired: str | None
    error: str | None = Field(description="why the last attempt to load a version failed")


class ModelClassOut(BaseModel):
    """A class of a model."""

    id: int = Field(description="its value in the masks of this model")
    name: str = Field(description="in the present class list; its own if that has no such class")
    color: list[int] = Field(description="RGB, 0..255, of the present class list")
    own_name: str = Field(description="in the bundle")
    listed: int | None = Field(description="its id in labels, that of the present class list; null: it is not in it")


class ModelDetailOut(ModelOut):
    """A version with the contents of its manifest."""

    classes: list[ModelClassOut]
    ignore_index: int
    # A list: the schema that FastAPI makes of a tuple is not valid.
    value_range: list[float] | None = Field(
        description="values that are black and white in images with more than 8 bits; null: not declared"
    )
    embedding: int | None = Field(description="length of the embedding of an image; null: the model returns none")
    metrics: dict[str, Any]
    provenance: dict[str, Any]


class ActivationOut(BaseModel):
    """The record of an activation."""

    model_config = ConfigDict(from_attributes=True)

    version: str
    at: datetime
    reason: str
    key_name: str | None = Field(description="name of the key of the person who activated it; null: the service did")
    serving: bool = Field(
        default=False, description="this process serves it; others follow on their own, see `model` in their /readyz"
    )
    error: str | None = Field(default=None, description="why this process could not load it yet; it tries again")


def _desired(state: State) -> str | None:
    activated = state.models.activated()
    return activated.version if activated else None


def _out(state: State, model: Model, desired: str | None) -> ModelOut:
    out = ModelOut.model_validate(model)
    out.serving = state.active_model.current_version == model.version
    out.desired = desired == model.version
    return out


@router.get("")
def list_models(
    state: StateOf, *, deleted: Annotated[bool, Query(description="List deleted versions, too")] = False
) -> ModelsOut:
    """List the model versions."""
    desired = _desired(state)
    models = [model for model in state.models.list() if deleted or model.state != "deleted"]
    return ModelsOut(
        models=[_out(state, model, desired) for model in models],
        serving=state.active_model.current_version,
        desired=desired,
        error=state.active_model.error,
    )


@router.post(
    "",
    status_code=201,
    openapi_extra=upload_docs("application/zip"),
    dependencies=[needs("admin")],
    responses=problem_docs(BadInput, EncodingUnsupported, BundleInvalid, StorageFailed, Unavailable),
)
async def upload_model(state: StateOf, request: Request) -> ModelOut:
    """Upload a zipped bundle. Its probe is run now; activate the version to serve it."""
    async with upload_file(request, state.settings.tmp_dir) as packed:
        model = await run_in_threadpool(state.models.import_upload, packed)
    return await run_in_threadpool(lambda: _out(state, model, _desired(state)))


@router.post(
    "/rollback",
    dependencies=[needs("admin")],
    responses=not_yet_docs(ActivationOut) | problem_docs(NothingToRollBack, ModelNotServable),
)
async def rollback(
    state: StateOf, request: Request, response: Response, wait_s: WaitS = DEFAULT_WAIT_S
) -> ActivationOut:
    """Activate the version that was active before. Answers as /activate."""
    activation = await run_in_threadpool(state.releases.rollback, caller_name(request))
    return await _answer(state, activation, wait_s, response)


@router.get("/{version}", responses=problem_docs(ModelNotFound, BundleInvalid, StorageFailed))
def get_model(state: StateOf, version: str) -> ModelDetailOut:
    """Get a version with its classes, metrics and provenance; also one that was deleted."""
    row = _out(state, state.models.get(version), _desired(state))
    manifest = state.models.manifest(version)
    return ModelDetailOut(
        **row.model_dump(),
        classes=_classes(state, manifest),
        ignore_index=manifest.ignore_index,
        value_range=list(manifest.value_range) if manifest.value_range else None,
        embedding=manifest.embedding_dimensions,
        metrics=manifest.metrics,
        provenance=manifest.provenance,
    )


def _classes(state: State, manifest: Manifest) -> list[ModelClassOut]:
    own = [entry.name for entry in manifest.classes]
    try:
        table, listed = state.models.classes.table(manifest), state.models.classes.listed(manifest)
    except NoModel:
        # There is no class list yet.
        names, colors = own, [entry.color for entry in manifest.classes]
        listed = [None] * len(own)
    else:
        names, colors = list(table.names), list(table.colors)
    return [
        ModelClassOut(id=i, name=name, color=list(color), own_name=own[i], listed=listed[i])
        for i, (name, color) in enumerate(zip(names, colors, strict=True))
    ]


@router.delete(
    "/{version}", dependencies=[needs("admin")], responses=problem_docs(ModelNotFound, NotDeletable, StorageFailed)
)
def delete_model(state: StateOf, request: Request, version: str) -> ModelOut:
    """Delete a version that is not in use. Its record stays; a worker deletes the files after a minute."""
    model = state.deletion.delete_model(version, "requested", caller_name(request))
    state.active_model.evict(version)
    return _out(state, model, _desired(state))


@router.post(
    "/{version}/activate",
    dependencies=[needs("admin")],
    responses=not_yet_docs(ActivationOut) | problem_docs(ModelNotFound, ReasonMissing, ModelNotServable),
)
async def activate(
    state: StateOf,
    request: Request,
    response: Response,
    version: str,
    *,
    reason: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=MAX_REASON,
            pattern=r"\S",
            description="Recorded with the key's name; needed for a version that was rejected or withdrawn",
        ),
    ] = None,
    wait_s: WaitS = DEFAULT_WAIT_S,
) -> ActivationOut:
    """Activate a version; the answer comes once it is loaded, its probe has passed, and this process serves it.

    Other serving processes load it on their own, within MASKLOOP_MODEL_POLL_S and the time that this takes.
    """
    activation = await run_in_threadpool(state.releases.activate, version, reason, caller_name(request))
    return await _answer(state, activation, wait_s, response)


async def _answer(state: State, activation: Activation, wait_s: float, response: Response) -> ActivationOut:
    out = ActivationOut.model_validate(activation, from_attributes=True)
    out.serving = await answer_when_serving(state, activation.version, wait_s, response)
    out.error = None if out.serving else state.active_model.error
    return out
