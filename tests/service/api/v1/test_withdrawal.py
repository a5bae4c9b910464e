"""A released model that fails in traffic is withdrawn over HTTP, unless a person overrode the service."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.settings import Settings
from service.state import State
from tests.service.conftest import MakeSettings, encoded, eventually, serve
from tests.service.releases.releasing import act, release_version
from tests.service.tiny_bundle import picture, write_bundle

FIRST, FAILING = "20260101T000000-aaaaaaaa", "20260104T000000-failing0"
IMAGE = encoded(picture())


def release_failing(state: State, folder: Path, settings: Settings) -> int:
    """Let the service release a model that fails on images of 30 pixels and more."""
    state.models.import_folder(write_bundle(folder / "failing", version=FAILING, max_height=30), state="candidate")
    return release_version(state, FAILING, settings)


def segment(client: TestClient) -> int:
    return client.post("/v1/segment", content=IMAGE).status_code


def test_model_that_fails_in_traffic_is_withdrawn(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings()
    with serve(settings) as client:
        state: State = client.app_state["maskloop"]
        assert [segment(client) for _ in range(20)] == [200] * 20
        release_id = release_failing(state, tmp_path, settings)
        eventually(lambda: client.get("/readyz").json()["model"] == FAILING)
        failed = 0
        while state.releases.get(release_id).state == "serving":
            failed += segment(client) == 500
            assert failed < 100
        release = client.get(f"/v1/releases/{release_id}").json()
        assert release["state"] == "withdrawn"
        assert "inferences failed, and 0 of 20 of the model before (20260101T000000-aaaaaaaa)" in release["reason"]
        assert release["traffic"]["requests"] >= release["traffic"]["errors"] > 0
        assert release["traffic_before"]["requests"] == 20
        eventually(lambda: client.get("/readyz").json()["model"] == FIRST)
        assert segment(client) == 200
        model = client.get(f"/v1/models/{FAILING}").json()
        assert (model["state"], model["error"]) == ("withdrawn", release["reason"])
        # It does not come back by itself, and by hand only with a reason.
        act(state, release_id, settings)
        assert client.get("/v1/models").json()["desired"] == FIRST
        assert client.post(f"/v1/models/{FAILING}/activate").status_code == 422


@pytest.mark.parametrize("way", ["activate", "release"])
def test_model_that_a_person_forced_is_not_withdrawn(make_settings: MakeSettings, tmp_path: Path, way: str) -> None:
    settings = make_settings()
    with serve(settings) as client:
        state: State = client.app_state["maskloop"]
        assert [segment(client) for _ in range(20)] == [200] * 20
        release_id = release_failing(state, tmp_path, settings)
        assert client.post("/v1/models/rollback", params={"wait_s": 60}).status_code == 200
        path = f"/v1/models/{FAILING}/activate" if way == "activate" else f"/v1/releases/{release_id}/release"
        answer = client.post(path, params={"reason": "only small images come now", "wait_s": 60})
        assert answer.status_code == 200
        assert [segment(client) for _ in range(30)] == [500] * 30
        state.release_watch.tick()
        assert client.get(f"/v1/releases/{release_id}").json()["state"] == "serving"


def test_model_is_not_withdrawn_if_the_watch_is_off(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(watch_requests=0)
    with serve(settings) as client:
        state: State = client.app_state["maskloop"]
        assert [segment(client) for _ in range(20)] == [200] * 20
        release_id = release_failing(state, tmp_path, settings)
        eventually(lambda: client.get("/readyz").json()["model"] == FAILING)
        assert [segment(client) for _ in range(30)] == [500] * 30
        state.release_watch.tick()
        assert state.releases.get(release_id).state == "serving"


def test_watch_does_not_override_a_person_who_acted_meanwhile(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(model_poll_s=3600)
    with serve(settings) as client:
        state: State = client.app_state["maskloop"]
        assert [segment(client) for _ in range(20)] == [200] * 20
        state.release_watch.tick()
        release_id = release_failing(state, tmp_path, settings)
        state.active_model.wake()
        eventually(lambda: client.get("/readyz").json()["model"] == FAILING)
        assert [segment(client) for _ in range(30)] == [500] * 30
        third = write_bundle(tmp_path / "third", version="20260105T000000-third000")
        state.models.import_folder(third)
        # By another process, whose service does not know of the failures.
        state.models.activate("20260105T000000-third000", "a person")
        state.release_watch.tick()
        release = client.get(f"/v1/releases/{release_id}").json()
        assert release["state"] == "superseded"
        assert client.get("/v1/models").json()["desired"] == "20260105T000000-third000"
