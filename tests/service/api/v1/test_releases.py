"""`/v1/releases` over HTTP: a run's candidate waits for a person, who decides."""

from __future__ import annotations

import threading

from service.runs.worker.perform import perform
from service.state import State
from tests.service.conftest import serve
from tests.service.runs.conftest import GOOD, actor, bad, clock, fill, good, loop, loop_settings, register_worker

__all__ = ["actor", "bad", "clock", "good", "loop", "loop_settings"]


def undecided_run(loop: State) -> str:
    """Perform a run with one validation image, which cannot decide."""
    fill(loop, val=1)
    register_worker(loop)
    run = loop.retrain_policy.start("manual")
    perform(
        run.id,
        threading.Event(),
        settings=loop.settings,
        database=loop.database,
        images=loop.images,
        models=loop.models,
    )
    return run.id


def test_person_releases_an_undecided_candidate(loop: State) -> None:
    run_id = undecided_run(loop)
    with serve(loop.settings) as client:
        (asked,) = client.get("/v1/releases", params={"run_id": run_id}).json()["releases"]
        assert (asked["state"], asked["version"], asked["verdict"]["outcome"]) == ("asked", GOOD, "undecided")
        assert client.get("/v1/releases", params={"run_id": "other"}).json() == {"releases": []}
        url = f"/v1/releases/{asked['id']}"
        assert client.get(url).json().items() >= asked.items()
        for reason in ({}, {"reason": " "}, {"reason": "x" * 201}):
            assert client.post(f"{url}/release", params=reason).status_code == 422
        released = client.post(f"{url}/release", params={"reason": "looked at 20 masks", "wait_s": 60}).json()
        assert (released["state"], released["reason"]) == ("serving", "looked at 20 masks")
        assert released["decided_by"] == "configured"
        assert client.get("/readyz").json()["model"] == GOOD
        again = client.post(f"{url}/decline", params={"reason": "too late"})
        assert (again.status_code, again.json()["type"]) == (409, "urn:maskloop:problem:release-decided")
        missing = client.get("/v1/releases/99")
        assert (missing.status_code, missing.json()["type"]) == (404, "urn:maskloop:problem:release-not-found")


def test_rejected_version_needs_a_reason_over_http(loop: State) -> None:
    undecided_run(loop)
    loop.models.mark(GOOD, "rejected", error="worse by a tenth")
    with serve(loop.settings) as client:
        refused = client.post(f"/v1/models/{GOOD}/activate")
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:maskloop:problem:reason-missing")
        assert "worse by a tenth" in refused.json()["detail"]
        activated = client.post(f"/v1/models/{GOOD}/activate", params={"reason": "the labels are wrong"}).json()
        assert (activated["reason"], activated["key_name"]) == ("the labels are wrong", "configured")
        assert client.get("/v1/releases").json()["releases"][0]["state"] == "serving"
