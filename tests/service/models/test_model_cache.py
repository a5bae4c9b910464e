"""Versions that clients request by name, in addition to the active one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import ModelLoading, ModelNotFound, ModelNotServable
from service.models.active_model import ActiveModel
from service.models.bundle import Bundle
from service.models.loading import LoadedModel, load_model
from service.settings import Settings
from service.state import State
from service.storage.tables import ModelState
from tests.service.models.test_active_model import FIRST, SECOND
from tests.service.tiny_bundle import write_bundle


def test_failed_version_cannot_be_requested(active_model: ActiveModel, state: State) -> None:
    state.models.activate(FIRST, "test")
    active_model.refresh()
    active_model.lease(SECOND)
    for version in (FIRST, SECOND):
        state.models.mark(version, "failed", error="because")
    with pytest.raises(ModelNotServable, match=r"failed \(because\): .+"):
        active_model.lease(SECOND)
    assert SECOND not in active_model.loaded_versions
    # The active model can be requested by its version in any state.
    assert active_model.lease(FIRST) is active_model.require()


@pytest.mark.parametrize("model_state", ["candidate", "rejected", "withdrawn"])
def test_version_can_be_requested_before_a_person_decides(
    active_model: ActiveModel, state: State, model_state: ModelState
) -> None:
    state.models.mark(SECOND, model_state)
    assert active_model.lease(SECOND).version == SECOND


def test_slow_load_blocks_neither_other_requests_nor_a_swap(
    active_model: ActiveModel, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.models.import_folder(write_bundle(tmp_path / "third", version="third"))
    state.models.activate(FIRST, "test")
    active_model.refresh()
    started, release = threading.Event(), threading.Event()

    def load_when_released(bundle: Bundle, settings: Settings) -> LoadedModel:
        started.set()
        assert release.wait(60)
        return load_model(bundle, settings)

    monkeypatch.setattr("service.models.model_cache.load_model", load_when_released)
    with ThreadPoolExecutor(1) as pool:
        requested = pool.submit(active_model.lease, "third")
        assert started.wait(20)
        for version in ("third", SECOND):
            with pytest.raises(ModelLoading) as rejected:
                active_model.lease(version)
            assert rejected.value.retry_after_s
        state.models.activate(SECOND, "test")
        active_model.refresh()
        assert active_model.require().version == SECOND
        release.set()
        assert requested.result(60).version == "third"
    assert active_model.lease("third") is requested.result()


def test_cache_evicts_older_versions_and_keeps_the_active_one(
    active_model: ActiveModel, state: State, tmp_path: Path
) -> None:
    state.models.activate(FIRST, "test")
    active_model.refresh()
    third = write_bundle(tmp_path / "third", version="third")
    state.models.import_folder(third)
    assert active_model.lease(FIRST) is active_model.require()
    second = active_model.lease(SECOND)
    assert active_model.lease(SECOND) is second
    active_model.lease("third")
    assert active_model.lease(SECOND) is not second
    with pytest.raises(ModelNotFound):
        active_model.lease("nothing")
    assert active_model.require().version == FIRST
