"""`/v1/releases`: what becomes of the candidates of runs; people release or decline them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from service.api.auth import caller_name, needs
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import problem_docs
from service.api.v1.activation_wait import DEFAULT_WAIT_S, WaitS, answer_when_serving, not_yet_docs
from service.errors import ModelNotServable, ReleaseDecided, ReleaseNotFound
from service.releases.rollout.disagreement import Disagreement
from service.releases.transitions import MAX_REASON
from service.releases.watch.latency_histogram import quantile_s
from service.releases.watch.regression import QUANTILE
from service.releases.watch.traffic_counters import Counts
from service.storage.tables import ReleaseState

router = APIRouter(prefix="/v1/releases", tags=["releases"])

# SQL's INTEGER: a larger id fails in the database.
LARGEST_ID = 2**31 - 1
ReleaseId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
Reason = Annotated[
    str,
    Query(min_length=1, max_length=MAX_REASON, pattern=r"\S", description="Why; it is recorded with the key's name"),
]


class TrafficOut(BaseModel):
    """Inferences of a model in traffic."""

    requests: int
    errors: int = Field(description="inferences that failed")
    p95_s: float | None = Field(
        description="95th percentile of the computing time of the others in seconds, at most 19 % too high: CPU time "
        "of the first thread; on a GPU, the duration"
    )


class DisagreementOut(BaseModel):
    """How far the masks of a shadow's candidate and of the active model differ; this says not which is better."""

    images: int = Field(description="images that both segmented")
    dropped: int = Field(
        description="images of the share that were not compared, since the service was busy or they are large"
    )
    errors: int = Field(description="images on which the candidate failed")
    share: float | None = Field(description="share of the pixels with different classes, 0..1")
    by_class: dict[str, float] = Field(description="the same among the pixels of each class of the active model")


class ReleaseOut(BaseModel):
    """A candidate and what became of it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    run_id: str
    version: str = Field(description="the candidate")
    state: ReleaseState = Field(
        description="judged: for an instant, after the verdict; asked: a person decides; shadow: it also computes a "
        "share of the answers, unseen, and a person decides; canary: it answers a share of the requests; serving; "
        "declined: by the gate or a person; superseded: another version was activated meanwhile, or a newer candidate "
        "got its share of the traffic; withdrawn: it was worse in traffic, or does not load"
    )
    reason: str = Field(description="why it is in this state")
    decided_by: str | None = Field(description="name of the key of the person who decided; null: the service did")
    verdict: dict[str, Any] = Field(description="the verdict of the gate, as in the `report` of the run")
    base_version: str | None = Field(description="the version that was active when the candidate was judged")
    judged_at: datetime
    changed_at: datetime = Field(description="time of the last change of the state")
    watched: bool = Field(description="the service withdraws it if it is worse in traffic")


class ReleaseDetailOut(ReleaseOut):
    """A release with the traffic of its models."""

    disagreement: DisagreementOut | None = Field(description="of a shadow; null: nothing was compared")
    traffic: TrafficOut
    traffic_before: TrafficOut = Field(
        description="of `base_version`, until the candidate was activated; from the beginning of its canary on, if any"
    )


class ReleasesOut(BaseModel):
    """Releases, newest first."""

    releases: list[ReleaseOut]


def _disagreement(found: Disagreement) -> DisagreementOut:
    by_class = {name: found.different[name] / pixels for name, pixels in found.pixels.items()}
    return DisagreementOut(
        images=found.images, dropped=found.dropped, errors=found.errors, share=found.share, by_class=by_class
    )


def _traffic(counts: Counts) -> TrafficOut:
    return TrafficOut(requests=counts.requests, errors=counts.errors, p95_s=quantile_s(counts.latency, QUANTILE))


@router.get("", dependencies=[needs("train")])
def list_releases(
    state: StateOf,
    run_id: Annotated[str | None, Query(description="Only the release of this run")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ReleasesOut:
    """List the releases, newest first."""
    return ReleasesOut(releases=[ReleaseOut.model_validate(each) for each in state.releases.list(run_id, limit)])


@router.get("/{release_id}", dependencies=[needs("train")], responses=problem_docs(ReleaseNotFound))
def get_release(state: StateOf, release_id: ReleaseId) -> ReleaseDetailOut:
    """Get a release with its verdict and its traffic."""
    release, new, old = state.releases.with_traffic(release_id)
    out = ReleaseOut.model_validate(release)
    return ReleaseDetailOut(
        **out.model_dump(),
        disagreement=_disagreement(Disagreement(**release.shadow)) if release.shadow else None,
        traffic=_traffic(new),
        traffic_before=_traffic(old),
    )


@router.post(
    "/{release_id}/release",
    dependencies=[needs("admin")],
    responses=not_yet_docs(ReleaseOut) | problem_docs(ReleaseNotFound, ReleaseDecided, ModelNotServable),
)
async def release_candidate(
    state: StateOf,
    request: Request,
    response: Response,
    release_id: ReleaseId,
    *,
    reason: Reason,
    wait_s: WaitS = DEFAULT_WAIT_S,
) -> ReleaseOut:
    """Activate a candidate, whatever the verdict: a person has the last word. Answers as /activate of models."""
    released = await run_in_threadpool(state.releases.release, release_id, reason, caller_name(request))
    await answer_when_serving(state, released.version, wait_s, response)
    return ReleaseOut.model_validate(released)


@router.post(
    "/{release_id}/decline", dependencies=[needs("admin")], responses=problem_docs(ReleaseNotFound, ReleaseDecided)
)
def decline_candidate(state: StateOf, request: Request, release_id: ReleaseId, reason: Reason) -> ReleaseOut:
    """Keep the active model; the candidate stays in the store."""
    return ReleaseOut.model_validate(state.releases.decline(release_id, reason, caller_name(request)))
