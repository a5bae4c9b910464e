"""The swap: a new model takes over under load, a bad one never does."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.errors import NoModel
from service.models.active_model import ActiveModel
from service.state import State
from tests.service.conftest import MakeSettings, encoded, eventually, read, serve
from tests.service.tiny_bundle import COLORS, nearest, picture, write_manifest, zipped

FIRST, SECOND = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"
IMAGE = picture()
ANSWERS = {FIRST: nearest(IMAGE, COLORS), SECOND: nearest(IMAGE, COLORS[::-1])}


def damage_probe(folder: Path, version: str) -> None:
    """A bundle whose sums are right and whose probe asks for another model's masks."""
    with np.load(folder / "probe.npz") as arrays:
        wrong = {name: (4 - arrays[name] if name.startswith("mask") else arrays[name]) for name in arrays.files}
    np.savez(folder / "probe.npz", **wrong)
    write_manifest(folder, version=version)


class Load:
    """Clients that ask without a pause, and check that every answer is whole and is that of the version it names."""

    def __init__(self, client: TestClient, clients: int = 4) -> None:
        self._client = client
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self.answered: list[str] = []
        self.failures: list[str] = []

    def _ask(self) -> None:
        data = encoded(IMAGE)
        while not self._end.is_set():
            response = self._client.post("/v1/segment", content=data)
            version = response.headers.get("x-model-version", "none")
            if response.status_code != 200 or not np.array_equal(read(response.content), ANSWERS[version]):
                self.failures.append(f"{response.status_code} {version} {response.text[:200]}")
            self.answered.append(version)

    def latest_are(self, version: str) -> bool:
        return self.answered[-8:] == [version] * 8

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_nothing_is_ready_before_something_was_activated(slot: ActiveModel) -> None:
    slot.refresh()
    assert slot.current is None
    with pytest.raises(NoModel):
        slot.require()


def test_it_follows_the_database(slot: ActiveModel, state: State) -> None:
    for version in (FIRST, SECOND, FIRST):
        state.models.activate(version, "test")
        slot.refresh()
        assert slot.require().version == version
    assert slot.error is None


def test_a_request_that_began_with_the_old_one_ends_with_it(slot: ActiveModel, state: State) -> None:
    state.models.activate(FIRST, "test")
    slot.refresh()
    held = slot.require()
    state.models.activate(SECOND, "test")
    slot.refresh()
    np.testing.assert_array_equal(held.engine.run(IMAGE).mask_HW, ANSWERS[FIRST])
    np.testing.assert_array_equal(slot.require().engine.run(IMAGE).mask_HW, ANSWERS[SECOND])


def test_a_folder_damaged_in_the_store_never_serves(slot: ActiveModel, state: State) -> None:
    state.models.activate(FIRST, "test")
    slot.refresh()
    (state.models.bundle(SECOND).folder / "model.onnx").write_bytes(b"damaged")
    state.models.activate(SECOND, "test")
    slot.refresh()
    assert slot.require().version == FIRST
    assert "sha256" in (slot.error or "")
    failed = state.models.get(SECOND)
    assert failed.state == "failed"
    assert "sha256" in (failed.error or "")


def test_a_bad_start_hands_back_to_the_version_before(slot: ActiveModel, state: State) -> None:
    """A new process, with the newest activation broken: the second look finds the one before."""
    state.models.activate(FIRST, "test")
    state.models.activate(SECOND, "test")
    shutil.rmtree(state.models.bundle(SECOND).folder)
    slot.start()
    eventually(lambda: slot.current is not None)
    assert slot.require().version == FIRST


def test_a_database_that_is_away_changes_nothing(slot: ActiveModel, state: State) -> None:
    state.models.activate(FIRST, "test")
    slot.refresh()
    state.database.close()
    database = state.settings.data_dir / "maskloop.db"
    away = database.with_suffix(".away")
    database.rename(away)
    slot.refresh()
    assert slot.require().version == FIRST
    assert slot.error
    state.database.close()
    for leftover in database.parent.glob("maskloop.db*"):
        leftover.unlink()
    away.rename(database)
    state.models.activate(SECOND, "test")
    slot.refresh()
    assert slot.require().version == SECOND


def test_swapping_under_load_loses_no_request(client: TestClient, other_bundle: Path) -> None:
    uploaded = client.post("/v1/models", content=zipped(other_bundle))
    assert uploaded.status_code == 201, uploaded.text
    with Load(client) as load:
        for version in (SECOND, FIRST, SECOND):
            assert client.post(f"/v1/models/{version}/activate").status_code == 200
            eventually(partial(load.latest_are, version))
        assert client.post("/v1/models/rollback").json()["version"] == FIRST
        eventually(partial(load.latest_are, FIRST))
    assert load.failures == []
    assert set(load.answered) == {FIRST, SECOND}


def test_a_bad_candidate_under_load_changes_nothing(client: TestClient, other_bundle: Path) -> None:
    """Its files are right when it is uploaded; then its probe file is replaced in the store, sums and all."""
    client.post("/v1/models", content=zipped(other_bundle))
    state: State = client.app_state["maskloop"]
    damage_probe(state.models.bundle(SECOND).folder, SECOND)
    with Load(client) as load:
        client.post(f"/v1/models/{SECOND}/activate")
        eventually(lambda: client.get(f"/v1/models/{SECOND}").json()["state"] == "failed")
        asked = len(load.answered)
        eventually(lambda: len(load.answered) > asked + 20)
    assert load.failures == []
    assert set(load.answered) == {FIRST}
    listed = client.get("/v1/models").json()
    assert (listed["serving"], listed["desired"]) == (FIRST, FIRST)
    assert "probe failed" in listed["error"]
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert "probe failed" in ready.json()["error"]
    assert "maskloop_model_failures_total 1.0" in client.get("/metrics").text


def test_a_promoted_model_survives_a_restart(make_settings: MakeSettings, other_bundle: Path) -> None:
    with serve(make_settings()) as client:
        client.post("/v1/models", content=zipped(other_bundle))
        client.post(f"/v1/models/{SECOND}/activate")
    with serve(make_settings()) as client:
        assert client.get("/readyz").json()["model"] == SECOND
