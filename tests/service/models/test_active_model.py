"""Active model: a new version is swapped in under load, an invalid one never is."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.errors import NoModel
from service.metrics import Metrics
from service.models.active_model import ActiveModel
from service.settings import Settings
from service.state import State
from tests.service.conftest import MakeSettings, encoded, eventually, read, serve
from tests.service.tiny_bundle import COLORS, nearest, picture, write_manifest, zipped

FIRST, SECOND = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"
IMAGE = picture()
ANSWERS = {FIRST: nearest(IMAGE, COLORS), SECOND: nearest(IMAGE, COLORS[::-1])}


def damage_probe(folder: Path, version: str) -> None:
    """Replace the masks of the probe by those of another model, with correct checksums."""
    with np.load(folder / "probe.npz") as arrays:
        wrong = {name: (4 - arrays[name] if name.startswith("mask") else arrays[name]) for name in arrays.files}
    np.savez(folder / "probe.npz", **wrong)
    write_manifest(folder, version=version)


class Load:
    """Clients that send requests without a pause, and compare every mask with that of the version in the response."""

    def __init__(self, client: TestClient, clients: int = 4) -> None:
        self._client = client
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._send_requests) for _ in range(clients)]
        self.versions: list[str] = []
        self.failures: list[str] = []

    def _send_requests(self) -> None:
        data = encoded(IMAGE)
        while not self._end.is_set():
            response = self._client.post("/v1/segment", content=data)
            version = response.headers.get("x-model-version", "none")
            if response.status_code != 200 or not np.array_equal(read(response.content), ANSWERS[version]):
                self.failures.append(f"{response.status_code} {version} {response.text[:200]}")
            self.versions.append(version)

    def latest_are(self, version: str) -> bool:
        return self.versions[-8:] == [version] * 8

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_no_model_is_ready_before_an_activation(active_model: ActiveModel) -> None:
    active_model.refresh()
    assert active_model.current is None
    with pytest.raises(NoModel):
        active_model.require()


def test_active_model_follows_the_database(active_model: ActiveModel, state: State) -> None:
    for version in (FIRST, SECOND, FIRST):
        state.models.activate(version, "test")
        active_model.refresh()
        assert active_model.require().version == version
    assert active_model.error is None


def test_metrics_name_a_new_model_before_it_serves(
    state: State, settings: Settings, bundle: Path, other_bundle: Path
) -> None:
    serving_then: list[str | None] = []
    for folder in (bundle, other_bundle):
        state.models.import_folder(folder)

    class Recorder(Metrics):
        def set_active_model(self, version: str, precision: str, provider: str) -> None:
            super().set_active_model(version, precision, provider)
            serving_then.append(recorded.current_version)

    recorded = ActiveModel(settings, state.models, Recorder())
    for version in (FIRST, SECOND):
        state.models.activate(version, "test")
        recorded.refresh()
        assert recorded.current_version == version
    recorded.stop()
    assert serving_then == [None, FIRST]


def test_request_keeps_the_model_it_began_with(active_model: ActiveModel, state: State) -> None:
    state.models.activate(FIRST, "test")
    active_model.refresh()
    old = active_model.require()
    state.models.activate(SECOND, "test")
    active_model.refresh()
    np.testing.assert_array_equal(old.engine.run(IMAGE).mask_HW, ANSWERS[FIRST])
    np.testing.assert_array_equal(active_model.require().engine.run(IMAGE).mask_HW, ANSWERS[SECOND])


def test_bundle_damaged_in_the_store_is_never_loaded(active_model: ActiveModel, state: State) -> None:
    state.models.activate(FIRST, "test")
    active_model.refresh()
    (state.models.bundle(SECOND).folder / "model.onnx").write_bytes(b"damaged")
    state.models.activate(SECOND, "test")
    active_model.refresh()
    assert active_model.require().version == FIRST
    assert "sha256" in (active_model.error or "")
    failed = state.models.get(SECOND)
    assert failed.state == "failed"
    assert "sha256" in (failed.error or "")


@pytest.mark.usefixtures("on_files")
def test_start_falls_back_to_the_previous_version(active_model: ActiveModel, state: State) -> None:
    """The newest activated version is broken: the first poll marks it, and the second loads the one before."""
    state.models.activate(FIRST, "test")
    state.models.activate(SECOND, "test")
    shutil.rmtree(state.models.bundle(SECOND).folder)
    active_model.start()
    eventually(lambda: active_model.current is not None)
    assert active_model.require().version == FIRST


@pytest.mark.usefixtures("on_files")
def test_active_model_stays_while_the_database_is_missing(active_model: ActiveModel, state: State) -> None:
    state.models.activate(FIRST, "test")
    active_model.refresh()
    state.database.close()
    database = state.settings.data_dir / "maskloop.db"
    moved = database.with_suffix(".moved")
    database.rename(moved)
    active_model.refresh()
    assert active_model.require().version == FIRST
    assert active_model.error
    state.database.close()
    for leftover in database.parent.glob("maskloop.db*"):
        leftover.unlink()
    moved.rename(database)
    state.models.activate(SECOND, "test")
    active_model.refresh()
    assert active_model.require().version == SECOND


def test_swap_under_load_fails_no_request(client: TestClient, other_bundle: Path) -> None:
    uploaded = client.post("/v1/models", content=zipped(other_bundle))
    assert uploaded.status_code == 201, uploaded.text
    with Load(client) as load:
        for version in (SECOND, FIRST, SECOND):
            assert client.post(f"/v1/models/{version}/activate", params={"wait_s": 60}).json()["serving"]
            eventually(partial(load.latest_are, version))
        assert client.post("/v1/models/rollback").json()["version"] == FIRST
        eventually(partial(load.latest_are, FIRST))
    assert load.failures == []
    assert set(load.versions) == {FIRST, SECOND}


def test_version_with_a_failing_probe_is_not_swapped_in_under_load(client: TestClient, other_bundle: Path) -> None:
    """The bundle is valid when it is uploaded; then its probe is replaced in the store, with its checksum."""
    client.post("/v1/models", content=zipped(other_bundle))
    state: State = client.app_state["maskloop"]
    damage_probe(state.models.bundle(SECOND).folder, SECOND)
    with Load(client) as load:
        refused = client.post(f"/v1/models/{SECOND}/activate", params={"wait_s": 60})
        assert (refused.status_code, client.get(f"/v1/models/{SECOND}").json()["state"]) == (409, "failed")
        count = len(load.versions)
        eventually(lambda: len(load.versions) > count + 20)
    assert load.failures == []
    assert set(load.versions) == {FIRST}
    listed = client.get("/v1/models").json()
    assert (listed["serving"], listed["desired"]) == (FIRST, FIRST)
    assert "probe failed" in listed["error"]
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert "probe failed" in ready.json()["error"]
    assert "maskloop_model_failures_total 1.0" in client.get("/metrics").text


def test_activated_model_is_loaded_after_a_restart(make_settings: MakeSettings, other_bundle: Path) -> None:
    with serve(make_settings()) as client:
        client.post("/v1/models", content=zipped(other_bundle))
        client.post(f"/v1/models/{SECOND}/activate")
    with serve(make_settings()) as client:
        assert client.get("/readyz").json()["model"] == SECOND
