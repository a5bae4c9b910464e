"""Answer an activation once the version serves in this process, or with 202 and a place to look."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from service.errors import ModelNotServable
from service.state import State

POLL_S = 0.05
# Common clients give up after 5 s without an answer.
DEFAULT_WAIT_S, MAX_WAIT_S = 4.0, 600.0

WaitS = Annotated[
    float,
    Query(
        ge=0,
        le=MAX_WAIT_S,
        allow_inf_nan=False,
        description="Wait up to so many seconds until this process serves the version; after them, the status is 202",
    ),
]
NOT_YET: dict[str, Any] = {
    "description": "It was activated, and this process does not serve it yet: look at `serving` there",
    "headers": {"Location": {"description": "the version", "schema": {"type": "string"}}},
}


def not_yet_docs(answer: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that activates."""
    return {202: NOT_YET | {"model": answer}}


async def answer_when_serving(state: State, version: str, wait_s: float, response: Response) -> bool:
    """Wait until this process serves a version that was just activated; return whether it does.

    If not, the status of the response is 202. Other processes load it on their own. Raises ModelNotServable if it does
    not load; the model before stays.
    """
    state.active_model.wake()
    if await _serves_within(state, version, wait_s):
        return True
    response.status_code = 202
    response.headers["Location"] = f"/v1/models/{version}"
    return False


async def _serves_within(state: State, version: str, wait_s: float) -> bool:
    end = time.monotonic() + wait_s
    while state.active_model.current_version != version:
        if time.monotonic() >= end or not await run_in_threadpool(_is_wanted, state, version):
            return False
        await asyncio.sleep(POLL_S)
    return True


def _is_wanted(state: State, version: str) -> bool:
    """Whether nobody has activated another version meanwhile. Raises ModelNotServable."""
    model = state.models.get(version)
    if model.state == "failed":
        raise ModelNotServable(
            f"{version} does not load, and the model before still serves: {model.error}. Export it again, upload it "
            "(POST /v1/models), and activate that."
        )
    activated = state.models.activated()
    return activated is not None and activated.version == version
