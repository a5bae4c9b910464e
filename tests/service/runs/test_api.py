"""`/v1/runs` over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from service.runs.leases.lease import claim
from service.state import State
from tests.service.conftest import encoded, serve
from tests.service.runs.conftest import BAD, fill, register_worker
from tests.service.tiny_bundle import COLORS, nearest, picture


@pytest.fixture
def api(loop: State) -> Iterator[TestClient]:
    with serve(loop.settings) as client:
        yield client


def events(text: str) -> list[tuple[int, dict[str, object]]]:
    """Parse a stream of server-sent events to ids and data."""
    parsed = []
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            parsed.append((int(fields["id"]), json.loads(fields["data"])))
    return parsed


def test_run_is_started_read_and_cancelled(api: TestClient, loop: State) -> None:
    fill(loop)
    register_worker(loop)
    started = api.post("/v1/runs")
    assert started.status_code == 201
    run = started.json()
    assert started.headers["Location"] == f"/v1/runs/{run['id']}"
    assert (run["status"], run["reason"], run["base_version"]) == ("queued", "manual", BAD)
    assert api.get(f"/v1/runs/{run['id']}").json() == run
    assert api.get("/v1/runs").json() == {"runs": [run], "next_cursor": None}
    again = api.post("/v1/runs")
    assert (again.status_code, again.json()["type"]) == (409, "urn:maskloop:problem:run-active")
    assert api.post(f"/v1/runs/{run['id']}/cancel").json()["status"] == "cancelled"
    finished = api.post(f"/v1/runs/{run['id']}/cancel")
    assert (finished.status_code, finished.json()["type"]) == (409, "urn:maskloop:problem:run-not-active")


def test_run_that_cannot_start_gets_a_problem_with_a_remedy(api: TestClient, loop: State) -> None:
    few = api.post("/v1/runs")
    assert (few.status_code, few.json()["type"]) == (409, "urn:maskloop:problem:not-enough-images")
    assert "split=labelled" in few.json()["detail"]
    fill(loop)
    register_worker(loop, can_train=False)
    missing = api.post("/v1/runs")
    assert (missing.status_code, missing.json()["type"]) == (503, "urn:maskloop:problem:trainer-missing")
    assert "pip install 'maskloop[trainer,exporter]'" in missing.json()["detail"]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel"), ("GET", "/events")])
def test_unknown_run_gets_404(api: TestClient, method: str, path: str) -> None:
    answer = api.request(method, f"/v1/runs/unknown{path}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:maskloop:problem:run-not-found")


def test_uploads_start_a_run_once_images_and_labels_suffice(api: TestClient, loop: State) -> None:
    register_worker(loop)
    for seed in range(3):
        assert api.post("/v1/images", content=encoded(picture(seed=seed))).status_code == 201
    assert api.get("/v1/runs").json()["runs"] == []
    # The number of images suffices; labels are still missing.
    for seed, split in ((10, "labelled"), (11, "labelled"), (12, "val")):
        image = picture(seed=seed)
        image_id = api.post("/v1/images", content=encoded(image)).json()["id"]
        assert api.get("/v1/runs").json()["runs"] == []
        mask = encoded(nearest(image, COLORS))
        assert api.put(f"/v1/images/{image_id}/mask?split={split}", content=mask).status_code == 200
    (run,) = api.get("/v1/runs").json()["runs"]
    assert (run["status"], run["reason"]) == ("queued", "images")


def test_next_run_is_described_over_http(api: TestClient, loop: State) -> None:
    fill(loop, unlabelled=1)
    register_worker(loop)
    told = api.get("/v1/runs/next").json()
    assert (told["due"], told["new_images"], told["images_needed"], told["labels_needed"]) == (None, 1, 3, 0)
    assert told["message"] == "The next run starts after 2 more unlabelled images."


def test_events_of_a_finished_run(api: TestClient, loop: State) -> None:
    fill(loop)
    register_worker(loop)
    run_id = api.post("/v1/runs").json()["id"]
    api.post(f"/v1/runs/{run_id}/cancel")
    answer = api.get(f"/v1/runs/{run_id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    received = events(answer.text)
    assert [data["event"] for _, data in received] == ["queued", "finished"]
    rest = api.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": str(received[0][0])})
    assert events(rest.text) == received[1:]
    for invalid in ("x", "-1", str(2**63)):
        assert api.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": invalid}).status_code == 422
    assert events(api.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": str(2**63 - 1)}).text) == []


def test_events_are_sent_while_the_run_is_active(api: TestClient, loop: State) -> None:
    fill(loop)
    register_worker(loop)
    run_id = api.post("/v1/runs").json()["id"]
    lease = claim(loop.database, run_id)
    assert lease is not None

    def work() -> None:
        lease.phase("train")
        lease.progress({"event": "progress", "step": 1, "steps": 1, "loss": 0.5})
        lease.finish("failed", "planned")

    timer = threading.Timer(0.5, work)
    timer.start()
    received = events(api.get(f"/v1/runs/{run_id}/events").text)
    timer.join()
    assert [data["event"] for _, data in received] == ["queued", "started", "phase", "progress", "finished"]
    assert received[-1][1]["error"] == "planned"
    ids = [number for number, _ in received]
    assert ids == sorted(set(ids))
