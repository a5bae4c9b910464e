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

from service.api.auth import needs
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import problem_docs
from service.errors import NoModel, NotEnoughImages, RunActive, RunNotActive, RunNotFound, TrainerMissing
from service.state import State
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
    reason: RunReason = Field(description="auto: enough new images; manual: POST /v1/runs")
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
    base_version: str | None = Field(description="the model from which training starts")
    candidate_version: str | None = Field(description="the model that it trained")
    miou_before: float | None = Field(
        description="0..1: mIoU of the active model on the run's validation images, over the classes in their labels"
    )
    miou_after: float | None = Field(description="0..1: mIoU of the candidate on the same images and classes")
    report: dict[str, Any] | None = Field(
        description="the verdict of the gate with its premises: outcome (promote, reject or undecided), sentence, "
        "rule, scores, and comparisons with confidence limits; `GET /v1/releases?run_id=` says what became of the "
        "candidate"
    )


class RunsOut(BaseModel):
    """All runs, newest first."""

    runs: list[RunOut]


@router.post("", status_code=201, responses=problem_docs(RunActive, NotEnoughImages, TrainerMissing, NoModel))
def start_run(state: StateOf, response: Response) -> RunOut:
    """Start a run with the images of the pool. Fails if labels or the trainer are missing."""
    run = state.retrain_policy.start("manual")
    response.headers["Location"] = f"/v1/runs/{run.id}"
    return RunOut.model_validate(run)


@router.get("")
def list_runs(state: StateOf, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> RunsOut:
    """List the runs, newest first."""
    return RunsOut(runs=[RunOut.model_validate(run) for run in state.runs.list(limit)])


@router.get("/{run_id}", responses=problem_docs(RunNotFound))
def get_run(state: StateOf, run_id: str) -> RunOut:
    """Get the progress or the outcome of a run."""
    return RunOut.model_validate(state.runs.get(run_id))


@router.post("/{run_id}/cancel", responses=problem_docs(RunNotFound, RunNotActive))
def cancel_run(state: StateOf, run_id: str) -> RunOut:
    """Cancel a run. A queued run ends at once, a running one within seconds."""
    return RunOut.model_validate(state.runs.request_cancel(run_id))


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
