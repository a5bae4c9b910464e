"""History, log, recipe and report of a run over HTTP, and pages of runs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from service.state import State
from service.storage.tables import Run
from tests.service.conftest import serve
from tests.service.runs.conftest import fill, finished_run, register_worker


@pytest.fixture
def api(loop: State) -> Iterator[TestClient]:
    with serve(loop.settings) as client:
        yield client


def test_records_of_a_finished_run(api: TestClient, loop: State) -> None:
    fill(loop)
    path = f"/v1/runs/{finished_run(loop)}"
    run = api.get(path).json()
    assert (run["status"], run["error"]) == ("judged", None)
    assert run["environment"] == {"python": "3", "device": "cpu"}
    history = api.get(f"{path}/history").json()
    assert [(point["step"], point["loss"]) for point in history["progress"]] == [
        (step, pytest.approx(1 / step)) for step in range(1, 6)
    ]
    assert history["evaluations"] == [{"step": 5, "miou": 0.5, "per_class": {}}]
    assert [point["step"] for point in api.get(f"{path}/history?points=2").json()["progress"]] == [1, 5]
    log = api.get(f"{path}/log")
    assert log.headers["content-type"] == "text/plain; charset=utf-8"
    assert "a line for people\n" in log.text
    assert str(loop.settings.data_dir) not in log.text
    assert api.get(f"{path}/log?tail=1").text.count("\n") == 1
    recipe = api.get(f"{path}/recipe")
    assert recipe.headers["content-type"].startswith("application/toml")
    assert tomllib.loads(recipe.text)["data"]["root"] == "dataset"


def test_report_is_a_page_that_runs_no_script(api: TestClient, loop: State) -> None:
    fill(loop)
    report = api.get(f"/v1/runs/{finished_run(loop)}/report")
    assert (report.status_code, report.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "curves" in report.text
    policy = report.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "sandbox" in policy
    assert "script" not in policy


@pytest.mark.parametrize("file", ["log", "recipe", "report"])
def test_files_that_a_run_has_not_written_get_404(api: TestClient, loop: State, file: str) -> None:
    fill(loop)
    register_worker(loop)
    run_id = loop.retrain_policy.start("manual").id
    answer = api.get(f"/v1/runs/{run_id}/{file}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:maskloop:problem:run-file-missing")
    assert api.get(f"/v1/runs/{run_id}/history").json() == {"progress": [], "evaluations": []}


@pytest.mark.parametrize("file", ["history", "log", "recipe", "report"])
@pytest.mark.parametrize("run_id", ["unknown", "..", "%2e%2e"])
def test_records_of_an_unknown_run_get_404(api: TestClient, run_id: str, file: str) -> None:
    answer = api.get(f"/v1/runs/{run_id}/{file}")
    assert answer.status_code == 404


def test_runs_are_listed_in_pages(api: TestClient, loop: State) -> None:
    with loop.database.write() as session:
        session.add_all(Run(id=f"r{number}", number=number, status="failed", reason="auto") for number in range(1, 6))
    ids, cursor = [], ""
    while True:
        page = api.get(f"/v1/runs?limit=2{cursor}").json()
        ids.append([run["id"] for run in page["runs"]])
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert ids == [["r5", "r4"], ["r3", "r2"], ["r1"]]
    invalid = api.get("/v1/runs?cursor=x")
    assert (invalid.status_code, invalid.json()["type"]) == (400, "urn:maskloop:problem:bad-input")
