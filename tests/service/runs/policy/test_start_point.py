"""Where training starts: the active model, another version, or the encoder."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.runs.policy.start_point import StartPoint, find_start
from service.settings import Settings
from service.state import State, open_state
from tests.service.conftest import serve
from tests.service.runs.conftest import BAD, CLASSES, GOOD, fill, perform_run, register_worker, write_version

OTHER = "20251231T000000-other000"


@pytest.fixture
def versions(loop: State, tmp_path: Path) -> State:
    """Two versions with a checkpoint, of which GOOD is active; BAD has none."""
    for version in (OTHER, GOOD):
        loop.models.import_folder(write_version(tmp_path / "versions", version))
    loop.models.activate(GOOD, "test")
    fill(loop)
    register_worker(loop)
    return loop


@pytest.fixture
def api(versions: State) -> Iterator[TestClient]:
    with serve(versions.settings) as client:
        yield client


@pytest.mark.parametrize(
    ("body", "base", "init"),
    [
        (None, GOOD, f"models/{GOOD}/model.safetensors"),
        ({}, GOOD, f"models/{GOOD}/model.safetensors"),
        ({"start_from": "active"}, GOOD, f"models/{GOOD}/model.safetensors"),
        ({"start_from": OTHER}, OTHER, f"models/{OTHER}/model.safetensors"),
        ({"start_from": "encoder"}, GOOD, ""),
    ],
)
def test_request_chooses_where_training_starts(
    api: TestClient, versions: State, body: dict[str, str] | None, base: str, init: str
) -> None:
    started = api.post("/v1/runs", json=body) if body is not None else api.post("/v1/runs")
    assert started.status_code == 201
    run_id = started.json()["id"]
    assert started.json()["base_version"] == base
    assert perform_run(versions, run_id).base_version == base
    recipe = tomllib.loads((versions.settings.data_dir / "runs" / run_id / "recipe.toml").read_text())
    assert recipe["init"].endswith(init)
    assert bool(recipe["init"]) == bool(init)
    assert api.get(f"/v1/runs/{run_id}").json()["from_encoder"] is not bool(init)


@pytest.mark.parametrize(
    ("body", "status", "problem", "remedy"),
    [
        ({"start_from": "unknown"}, 404, "model-not-found", "GET /v1/models"),
        ({"start_from": BAD}, 409, "start-unusable", "has no checkpoint"),
        ({"start": "encoder"}, 422, "invalid-request", "start"),
        ({"start_from": ""}, 422, "invalid-request", "start_from"),
    ],
)
def test_start_that_is_not_possible_gets_a_remedy(
    api: TestClient, body: dict[str, str], status: int, problem: str, remedy: str
) -> None:
    answer = api.post("/v1/runs", json=body)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:maskloop:problem:{problem}")
    assert remedy in answer.json()["detail"]


def test_version_of_other_classes_is_a_start(api: TestClient, versions: State, tmp_path: Path) -> None:
    renamed = [entry | {"name": f"{entry['name']} 2"} for entry in CLASSES]
    versions.models.import_folder(write_version(tmp_path / "renamed", "20251230T000000-renamed0", classes=renamed))
    answer = api.post("/v1/runs", json={"start_from": "20251230T000000-renamed0"})
    assert (answer.status_code, answer.json()["base_version"]) == (201, "20251230T000000-renamed0")


def test_model_without_a_checkpoint_is_reported_to_start_from_the_encoder(loop: State) -> None:
    fill(loop)
    register_worker(loop)
    run = loop.retrain_policy.start("manual")
    assert not run.from_encoder
    assert perform_run(loop, run.id).from_encoder


def test_setting_lets_automatic_runs_start_from_the_encoder(
    versions: State, loop_settings: Callable[..., Settings]
) -> None:
    state = open_state(loop_settings(start_from="encoder"))
    run = state.retrain_policy.consider()
    assert run is not None
    assert (run.reason, run.base_version, run.from_encoder) == ("images", GOOD, True)
    assert find_start(versions.models, "active") == StartPoint(GOOD, from_encoder=False)
    state.close()
