"""Versions in and out of the store, and the line of activations."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import BundleInvalid, ModelNotFound, ModelNotServable, NothingToRollBack
from service.models.store import ModelStore
from service.state import State
from tests.service.tiny_bundle import COLORS, write_bundle, zipped

FIRST, SECOND = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"


@pytest.fixture
def models(state: State, bundle: Path, other_bundle: Path) -> ModelStore:
    state.models.import_folder(bundle)
    state.models.import_folder(other_bundle, state="candidate", run_id="r1")
    return state.models


def desired(models: ModelStore) -> str | None:
    model = models.desired()
    return model.version if model else None


def test_a_bundle_is_copied_whole(models: ModelStore, bundle: Path, state: State) -> None:
    copy = models.bundle(FIRST).folder
    assert copy.is_relative_to(state.settings.data_dir)
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == {p.name: p.read_bytes() for p in bundle.iterdir()}
    assert not Path(models.get(FIRST).path).is_absolute()
    assert {m.version: m.state for m in models.list()} == {SECOND: "candidate", FIRST: "ready"}


def test_importing_twice_is_importing_once(models: ModelStore, bundle: Path) -> None:
    assert models.import_folder(bundle).version == FIRST
    assert len(models.list()) == 2


def test_one_version_with_other_files_is_refused(models: ModelStore, tmp_path: Path) -> None:
    impostor = write_bundle(tmp_path / "impostor", version=FIRST, colors=COLORS[1:])
    with pytest.raises(BundleInvalid, match="other files"):
        models.import_folder(impostor)


def test_threads_that_import_the_same_make_one(state: State, bundle: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: state.models.import_folder(bundle).version, range(6)))
    assert set(found) == {FIRST}
    assert [p.name for p in (state.settings.data_dir / "models").iterdir()] == [FIRST]


def test_a_broken_bundle_leaves_nothing(state: State, bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"changed")
    with pytest.raises(BundleInvalid):
        state.models.import_folder(bundle)
    with pytest.raises(BundleInvalid):
        state.models.import_zip(io.BytesIO(zipped(bundle)))
    folder = state.settings.data_dir / "models"
    assert not folder.exists() or list(folder.iterdir()) == []
    assert state.models.list() == []


def test_the_newest_activation_is_desired(models: ModelStore) -> None:
    assert desired(models) is None
    models.activate(FIRST, "test")
    assert desired(models) == FIRST
    models.activate(SECOND, "test")
    assert desired(models) == SECOND
    assert models.get(SECOND).state == "ready"


def test_rollback_goes_back_and_again_forward(models: ModelStore) -> None:
    models.activate(FIRST, "test")
    models.activate(FIRST, "again")
    with pytest.raises(NothingToRollBack):
        models.rollback()
    models.activate(SECOND, "test")
    assert models.rollback().version == FIRST
    assert desired(models) == FIRST
    assert models.rollback().version == SECOND


def test_rolling_back_nothing_is_refused(state: State) -> None:
    with pytest.raises(NothingToRollBack):
        state.models.rollback()


def test_a_failed_version_hands_back_to_the_one_before(models: ModelStore) -> None:
    models.activate(FIRST, "test")
    models.activate(SECOND, "test")
    models.mark(SECOND, "failed", error="probe")
    assert desired(models) == FIRST
    with pytest.raises(ModelNotServable, match="probe"):
        models.activate(SECOND, "again")


def test_a_rejected_version_is_not_activated(models: ModelStore) -> None:
    models.mark(SECOND, "rejected", miou=0.25)
    assert models.get(SECOND).miou == 0.25
    with pytest.raises(ModelNotServable):
        models.activate(SECOND, "test")


def test_unknown_versions_are_not_found(models: ModelStore) -> None:
    for call in (models.get, models.bundle, lambda v: models.activate(v, "x"), lambda v: models.mark(v, "ready")):
        with pytest.raises(ModelNotFound):
            call("nothing")


def test_the_start_model_begins_and_does_not_undo_what_came_later(state: State, other_bundle: Path) -> None:
    state.models.ensure_start_model()
    assert desired(state.models) == FIRST
    state.models.import_folder(other_bundle)
    state.models.activate(SECOND, "promoted")
    state.models.ensure_start_model()
    assert desired(state.models) == SECOND
