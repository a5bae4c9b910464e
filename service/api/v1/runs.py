"""`/v1/runs`: start, watch and cancel retraining runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from service.api.auth import caller_name, needs
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import problem_docs
from service.errors import (
    BadInput,
    BundleInvalid,
    ImagesDeleted,
    LabelsUnusable,
    ModelNotFound,
    NoModel,
    NotDeletable,
    NotEnoughImages,
    RunActive,
    RunNotActive,
    RunNotFound,
    RunNotRepeatable,
    StartUnusable,
    TrainerMissing,
)
from service.runs.policy.triggers import Trigger
from service.state import State
from service.storage.cursors import parse_cursor
from service.storage.deletion_columns import DeletionReason
from service.storage.tables import ACTIVE, RunReason, RunStatus

router = APIRouter(prefix="/v1/runs", tags=["runs"], dependencies=[needs("train")])

POLL_S = 0.5
# Milliseconds after which a client reconnects.
RETRY_MS = 2000
# SQL's BIGINT: a larger id fails in the database.
LARGEST_ID = 2**63 - 1


class RunOut(BaseModel):
    """A retraining run."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    status: RunStatus = Field(description="judged: it ended with a verdict about its candidate")
    reason: RunReason = Field(
        description="what started it: new images, new labels, the schedule, drift, `manual` (POST /v1/runs) or "
        "`repeat`; `auto` in old runs: images"
    )
    repeats: str | None = Field(description="the run whose images, labels, recipe and seed it uses again")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int = Field(
        description="attempts since the last progress; a run fails after 3 that were interrupted without any"
    )
    cancel_requested: bool
    phase: str | None = Field(description="prepare, train, export, judge or release")
    step: int | None = Field(description="current step of this phase, out of `steps`")
    steps: int | None
    loss: float | None
    error: str | None = Field(description="why it failed")
    environment: dict[str, Any] | None = Field(
        description="of its trainer: versions of code, Python and libraries, and the names of platform, CPU and device"
    )
    base_version: str | None = Field(description="the model from which training starts; it gives the recipe")
    from_encoder: bool = Field(
        description="whether training starts from the encoder's pretrained weights, not from those of `base_version`; "
        "known once its recipe is written"
    )
    candidate_version: str | None = Field(description="the model that it trained")
    classes_version: int | None = Field(
        description="version of the class list for which it trains; null: it has no snapshot yet"
    )
    miou_before: float | None = Field(
        description="0..1: mIoU of the active model on the run's validation images, over the classes "
        "in their labels that both models have"
    )
    miou_after: float | None = Field(description="0..1: mIoU of the candidate on the same images and classes")
    report: dict[str, Any] | None = Field(
        description="the verdict of the gate with its premises: outcome (promote, reject or undecided), sentence, "
        "rule, scores, and comparisons with confidence limits; `GET /v1/releases?run_id=` says what became of the "
        "candidate"
    )
    bytes: int | None = Field(description="size of its files; null: not measured yet, or it has none")
    deleted_at: datetime | None = Field(
        description="time when log, history, checkpoint and report were deleted; its record and its recipe stay"
    )
    deletion_reason: DeletionReason | None = Field(description="requested, or the limit of retention: age or bytes")
    deleted_by: str | None = Field(description="name of the key of the person who deleted them; null: the service did")


class StartIn(BaseModel):
    """How to start a run."""

    model_config = ConfigDict(extra="forbid")

    start_from: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="`active`: the checkpoint of the active model; `encoder`: the encoder's pretrained weights; or a "
        "model version, which needs a checkpoint. Default: MASKLOOP_START_FROM",
    )


class NextRunOut(BaseModel):
    """What starts the next run, and what prevents it."""

    model_config = ConfigDict(from_attributes=True)

    due: Trigger | None = Field(description="the trigger that is reached")
    new_images: int = Field(description="unlabelled images since the last run that learned, at most `images_needed`")
    images_needed: int = Field(description="MASKLOOP_RETRAIN_AFTER_IMAGES; 0: images start no run")
    new_labels: int = Field(description="labels since the last run that learned, at most `labels_needed`")
    labels_needed: int = Field(description="MASKLOOP_RETRAIN_AFTER_LABELS; 0: labels start no run")
    scheduled_at: datetime | None = Field(description="next time of MASKLOOP_RETRAIN_CRON")
    on_drift: bool = Field(description="MASKLOOP_RETRAIN_ON_DRIFT: whether a drift alarm starts a run")
    paused_until: datetime | None = Field(description="no run starts by itself before")
    pause_reason: str | None
    obstacle: str | None = Field(description="why no run could start now, even on request")
    classes_without_labels: list[str] = Field(
        description="classes that no label for training shows: a run would not learn them"
    )
    message: str = Field(description="all of it in words")


class RunsOut(BaseModel):
    """A page of runs, newest first."""

    runs: list[RunOut]
    next_cursor: str | None = Field(description="pass as ?cursor= for the next page; null: this is the last")


@router.post(
    "",
    status_code=201,
    responses=problem_docs(
        BadInput,
        RunActive,
        NotEnoughImages,
        TrainerMissing,
        NoModel,
        ModelNotFound,
        StartUnusable,
        LabelsUnusable,
        BundleInvalid,
    ),
)
def start_run(state: StateOf, response: Response, how: StartIn | None = None) -> RunOut:
    """Start a run with the images of the pool. Fails if labels or the trainer are missing."""
    run = state.retrain_policy.start("manual", start_from=how.start_from if how else None)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    return RunOut.model_validate(run)


@router.post(
    "/{run_id}/repeat",
    status_code=201,
    responses=problem_docs(RunNotFound, RunNotRepeatable, ImagesDeleted, ModelNotFound, RunActive, TrainerMissing),
)
def repeat_run(
    state: StateOf,
    run_id: str,
    response: Response,
    *,
    without_deleted: Annotated[bool, Query(description="Leave out images that were deleted since")] = False,
) -> RunOut:
    """Start a run with the images, labels, recipe and seed of another one."""
    run = state.retrain_policy.repeat(run_id, without_deleted=without_deleted)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    return RunOut.model_validate(run)


@router.get("", responses=problem_docs(BadInput))
def list_runs(state: StateOf, limit: Annotated[int, Query(ge=1, le=1000)] = 100, cursor: str | None = None) -> RunsOut:
    """List the runs, newest first."""
    found = state.runs.list(limit + 1, None if cursor is None else parse_cursor(cursor))
    runs, more = found[:limit], len(found) > limit
    return RunsOut(
        runs=[RunOut.model_validate(run) for run in runs], next_cursor=str(runs[-1].number) if more else None
    )


@router.get("/next")
def next_run(state: StateOf) -> NextRunOut:
    """Tell what is missing until the next run starts by itself: counts, pauses, obstacles, and all of it in words."""
    return NextRunOut.model_validate(state.retrain_policy.next_run())


@router.get("/{run_id}", responses=problem_docs(RunNotFound))
def get_run(state: StateOf, run_id: str) -> RunOut:
    """Get the progress or the outcome of a run."""
    return RunOut.model_validate(state.runs.get(run_id))


@router.post("/{run_id}/cancel", responses=problem_docs(RunNotFound, RunNotActive))
def cancel_run(state: StateOf, run_id: str) -> RunOut:
    """Cancel a run. A queued run ends at once, a running one within seconds."""
    return RunOut.model_validate(state.runs.request_cancel(run_id))


@router.delete("/{run_id}", dependencies=[needs("admin")], responses=problem_docs(RunNotFound, NotDeletable))
def delete_run(state: StateOf, request: Request, run_id: str) -> RunOut:
    """Delete log, history, checkpoint and report of a run; its record and its recipe stay, and it can be repeated."""
    return RunOut.model_validate(state.deletion.delete_run(run_id, "requested", caller_name(request)))


def _existing_run(state: StateOf, run_id: str) -> str:
    # Check before the stream begins: after its first byte the status is sent.
    return state.runs.get(run_id).id


@router.get("/{run_id}/events", response_class=EventSourceResponse, responses=problem_docs(RunNotFound))
async def run_events(
    request: Request,
    state: StateOf,
    run_id: Annotated[str, Depends(_existing_run)],
    last_event_id: Annotated[int, Header(ge=0, le=LARGEST_ID)] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Stream the events of a run as server-sent events, from the first or after `Last-Event-ID`, until it ends."""
    stopping: threading.Event = getattr(request.app.state, "stopping", threading.Event())
    yield ServerSentEvent(comment="events of a run", retry=RETRY_MS)
    while not stopping.is_set():
        over, events = await run_in_threadpool(_new_events, state, run_id, last_event_id)
        for event in events:
            last_event_id = int(event.id or 0)
            yield event
        if not events:
            if over:
                return
            await asyncio.sleep(POLL_S)


def _new_events(state: State, run_id: str, after: int) -> tuple[bool, list[ServerSentEvent]]:
    # The status first: the last event is written in the same transaction as the last status.
    over = state.runs.get(run_id).status not in ACTIVE
    rows = state.runs.events(run_id, after)
    return over, [
        ServerSentEvent(id=str(row.id), event=row.event["event"], data={**row.event, "at": row.at}) for row in rows
    ]
