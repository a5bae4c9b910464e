"""Versions in and out of the store, and the line of activations."""

from __future__ import annotations

import io
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.errors import BundleInvalid, ModelNotFound, ModelNotServable, NothingToRollBack
from service.models.bundle import read_bundle
from service.models.model_store import ModelStore
from service.settings import Settings
from service.state import State, open_state
from tests.service.tiny_bundle import COLORS, write_bundle, zipped

FIRST, SECOND = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"


@pytest.fixture
def models(state: State, bundle: Path, other_bundle: Path) -> ModelStore:
    state.models.import_folder(bundle)
    state.models.import_folder(other_bundle, state="candidate", run_id="r1")
    return state.models


def desired(models: ModelStore) -> str | None:
    model = models.activated()
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
        state.models.import_upload(io.BytesIO(zipped(bundle)))
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


def test_a_failed_version_can_be_tried_again(models: ModelStore) -> None:
    models.activate(FIRST, "test")
    models.mark(SECOND, "failed", error="probe")
    models.activate(SECOND, "again")
    assert desired(models) == SECOND
    assert (models.get(SECOND).state, models.get(SECOND).error) == ("ready", None)


@pytest.mark.parametrize("damage", ["nothing", "a file", "the manifest", "all"])
def test_bringing_a_failed_version_again_mends_it(models: ModelStore, other_bundle: Path, damage: str) -> None:
    stored = models.bundle(SECOND).folder
    if damage == "all":
        shutil.rmtree(stored)
    elif damage != "nothing":
        (stored / ("model.onnx" if damage == "a file" else "manifest.json")).write_bytes(b"damaged")
    models.mark(SECOND, "failed", error="probe")
    assert models.import_folder(other_bundle).state == "ready"
    assert models.get(SECOND).error is None
    assert read_bundle(stored).manifest == read_bundle(other_bundle).manifest
    assert sorted(p.name for p in stored.parent.iterdir()) == [FIRST, SECOND]


def test_failing_gives_nobody_anothers_version(models: ModelStore, tmp_path: Path) -> None:
    models.mark(FIRST, "failed", error="probe")
    with pytest.raises(BundleInvalid, match="other files"):
        models.import_folder(write_bundle(tmp_path / "impostor", version=FIRST, colors=COLORS[1:]))
    assert models.get(FIRST).state == "failed"


def test_a_model_is_on_the_disk_before_its_row_says_so(
    state: State, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file, its folder, and, after the rename, the folder above."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("who was flushed is read from /proc")
    flushed: list[Path] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    state.models.import_folder(bundle)
    assert {p.name for p in bundle.iterdir()} <= {p.name for p in flushed}
    assert flushed[-2].name.startswith(".import-")
    assert flushed[-1] == (state.settings.data_dir / "models").absolute()


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


def test_a_start_model_given_by_name_takes_over_once(state: State, bundle: Path, other_bundle: Path) -> None:
    state.models.ensure_start_model()
    state.close()
    named = open_state(state.settings.model_copy(update={"model": str(other_bundle)}))
    named.models.ensure_start_model()
    assert desired(named.models) == SECOND
    named.models.activate(FIRST, "a person")
    with capture_logs() as lines:
        named.models.ensure_start_model()
    assert desired(named.models) == FIRST
    (warning,) = [line for line in lines if line["log_level"] == "warning"]
    assert warning["remedy"].startswith(f"POST /v1/models/{SECOND}/activate")
    named.models.mark(FIRST, "failed", error="test")
    named.models.mark(SECOND, "failed", error="test")
    named.models.ensure_start_model()
    assert desired(named.models) == SECOND
    named.close()


def test_a_new_starter_of_the_package_does_not_push_out_what_was_trained_here(
    state: State, bundle: Path, other_bundle: Path
) -> None:
    class Packaged(Settings):
        @property
        def start_model(self) -> Path:
            return other_bundle

    models = ModelStore(Packaged(data_dir=state.settings.data_dir), state.database)
    state.models.import_folder(bundle)
    state.models.activate(FIRST, "a run")
    models.ensure_start_model()
    assert desired(models) == FIRST
    assert [m.version for m in models.list()] == [FIRST]
    models.mark(FIRST, "failed", error="test")
    models.ensure_start_model()
    assert desired(models) == SECOND
