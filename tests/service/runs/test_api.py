"""`/v1/runs` over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from service.runs.lease import claim
from service.state import State
from tests.service.conftest import encoded, serve
from tests.service.runs.conftest import BAD, employ, fill
from tests.service.tiny_bundle import COLORS, nearest, picture


@pytest.fixture
def api(loop: State) -> Iterator[TestClient]:
    with serve(loop.settings) as client:
        yield client


def events(text: str) -> list[tuple[int, dict[str, object]]]:
    """Ids and data of a stream of server-sent events."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields["id"]), json.loads(fields["data"])))
    return found


def test_a_run_by_hand(api: TestClient, loop: State) -> None:
    fill(loop)
    employ(loop)
    started = api.post("/v1/runs")
    assert started.status_code == 201
    run = started.json()
    assert started.headers["Location"] == f"/v1/runs/{run['id']}"
    assert (run["status"], run["reason"], run["base_version"]) == ("queued", "manual", BAD)
    assert api.get(f"/v1/runs/{run['id']}").json() == run
    assert api.get("/v1/runs").json() == {"runs": [run]}
    again = api.post("/v1/runs")
    assert (again.status_code, again.json()["type"]) == (409, "urn:maskloop:problem:run-active")
    image = loop.runs.images(run["id"], "labelled")[0]
    assert api.delete(f"/v1/images/{image}").status_code == 409
    assert api.post(f"/v1/runs/{run['id']}/cancel").json()["status"] == "cancelled"
    over = api.post(f"/v1/runs/{run['id']}/cancel")
    assert (over.status_code, over.json()["type"]) == (409, "urn:maskloop:problem:run-not-active")


def test_refusals_say_what_to_do(api: TestClient, loop: State) -> None:
    few = api.post("/v1/runs")
    assert (few.status_code, few.json()["type"]) == (409, "urn:maskloop:problem:not-enough-images")
    assert "split=labelled" in few.json()["detail"]
    fill(loop)
    employ(loop, can_train=False)
    missing = api.post("/v1/runs")
    assert (missing.status_code, missing.json()["type"]) == (503, "urn:maskloop:problem:trainer-missing")
    assert "uv pip install" in missing.json()["detail"]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel"), ("GET", "/events")])
def test_an_unknown_run_is_a_404(api: TestClient, method: str, path: str) -> None:
    answer = api.request(method, f"/v1/runs/nobody{path}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:maskloop:problem:run-not-found")


def test_images_over_http_start_a_run_by_themselves(api: TestClient, loop: State) -> None:
    employ(loop)
    for seed in range(3):
        assert api.post("/v1/images", content=encoded(picture(seed=seed))).status_code == 201
    assert api.get("/v1/runs").json()["runs"] == []
    # The images were enough; now the labels are too.
    for seed, split in ((10, "labelled"), (11, "labelled"), (12, "val")):
        image = picture(seed=seed)
        image_id = api.post("/v1/images", content=encoded(image)).json()["id"]
        assert api.get("/v1/runs").json()["runs"] == []
        mask = encoded(nearest(image, COLORS))
        assert api.put(f"/v1/images/{image_id}/mask?split={split}", content=mask).status_code == 200
    (run,) = api.get("/v1/runs").json()["runs"]
    assert (run["status"], run["reason"]) == ("queued", "auto")


def test_the_events_of_a_run_that_is_over(api: TestClient, loop: State) -> None:
    fill(loop)
    employ(loop)
    run_id = api.post("/v1/runs").json()["id"]
    api.post(f"/v1/runs/{run_id}/cancel")
    answer = api.get(f"/v1/runs/{run_id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    assert [data["event"] for _, data in found] == ["queued", "finished"]
    rest = api.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": str(found[0][0])})
    assert events(rest.text) == found[1:]
    for wrong in ("x", "-1", str(2**63)):
        assert api.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": wrong}).status_code == 422
    assert events(api.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": str(2**63 - 1)}).text) == []


def test_events_come_while_the_run_goes_on(api: TestClient, loop: State) -> None:
    fill(loop)
    employ(loop)
    run_id = api.post("/v1/runs").json()["id"]
    lease = claim(loop.database, run_id)
    assert lease is not None

    def work() -> None:
        lease.phase("train")
        lease.progress({"event": "progress", "step": 1, "steps": 1, "loss": 0.5})
        lease.finish("failed", "as planned")

    later = threading.Timer(1.0, work)
    later.start()
    found = events(api.get(f"/v1/runs/{run_id}/events").text)
    later.join()
    assert [data["event"] for _, data in found] == ["queued", "started", "phase", "progress", "finished"]
    assert found[-1][1]["error"] == "as planned"
    ids = [number for number, _ in found]
    assert ids == sorted(set(ids))
