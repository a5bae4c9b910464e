"""Versions asked for by name, beside the one that serves."""

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


@pytest.mark.parametrize("held", ["candidate", "rejected", "failed"])
def test_only_ready_versions_are_lent(slot: ActiveModel, state: State, held: ModelState) -> None:
    state.models.activate(FIRST, "test")
    slot.refresh()
    slot.lease(SECOND)
    for version in (FIRST, SECOND):
        state.models.mark(version, held, error="because")
    with pytest.raises(ModelNotServable, match=f"{held} \\(because\\): .+"):
        slot.lease(SECOND)
    # What answers everybody answers by its name too.
    assert slot.lease(FIRST) is slot.require()


def test_a_slow_load_for_one_holds_up_nobody(
    slot: ActiveModel, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.models.import_folder(write_bundle(tmp_path / "third", version="third"))
    state.models.activate(FIRST, "test")
    slot.refresh()
    begun, go = threading.Event(), threading.Event()

    def held(bundle: Bundle, settings: Settings) -> LoadedModel:
        begun.set()
        assert go.wait(20)
        return load_model(bundle, settings)

    monkeypatch.setattr("service.models.model_cache.load_model", held)
    with ThreadPoolExecutor(1) as pool:
        lent = pool.submit(slot.lease, "third")
        assert begun.wait(20)
        for version in ("third", SECOND):
            with pytest.raises(ModelLoading) as told:
                slot.lease(version)
            assert told.value.retry_after_s
        state.models.activate(SECOND, "test")
        slot.refresh()
        assert slot.require().version == SECOND
        go.set()
        assert lent.result(20).version == "third"
    assert slot.lease("third") is lent.result()


def test_other_versions_are_lent_and_few_are_kept(slot: ActiveModel, state: State, tmp_path: Path) -> None:
    state.models.activate(FIRST, "test")
    slot.refresh()
    third = write_bundle(tmp_path / "third", version="third")
    state.models.import_folder(third)
    assert slot.lease(FIRST) is slot.require()
    second = slot.lease(SECOND)
    assert slot.lease(SECOND) is second
    slot.lease("third")
    assert slot.lease(SECOND) is not second
    with pytest.raises(ModelNotFound):
        slot.lease("nothing")
    assert slot.require().version == FIRST
