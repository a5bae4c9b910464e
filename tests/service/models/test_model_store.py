"""Model store: imports, activations and rollbacks."""

from __future__ import annotations

import io
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.errors import BundleInvalid, ModelNotFound, NothingToRollBack
from service.models.bundle import read_bundle
from service.models.model_store import ModelStore
from service.settings import Settings
from service.state import State, open_state
from tests.service.conftest import MakeSettings
from tests.service.tiny_bundle import COLORS, write_bundle, zipped

FIRST, SECOND = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"


@pytest.fixture
def models(state: State, bundle: Path, other_bundle: Path) -> ModelStore:
    state.models.import_folder(bundle)
    state.models.import_folder(other_bundle, state="candidate", run_id="r1")
    return state.models


def activated(models: ModelStore) -> str | None:
    model = models.activated()
    return model.version if model else None


def test_import_copies_every_file(models: ModelStore, bundle: Path, state: State) -> None:
    copy = models.bundle(FIRST).folder
    assert copy.is_relative_to(state.settings.data_dir)
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == {p.name: p.read_bytes() for p in bundle.iterdir()}
    assert not Path(models.get(FIRST).path).is_absolute()
    assert {m.version: m.state for m in models.list()} == {SECOND: "candidate", FIRST: "ready"}


def test_second_import_changes_nothing(models: ModelStore, bundle: Path) -> None:
    assert models.import_folder(bundle).version == FIRST
    assert len(models.list()) == 2


def test_other_files_with_a_known_version_are_rejected(models: ModelStore, tmp_path: Path) -> None:
    conflicting = write_bundle(tmp_path / "conflicting", version=FIRST, colors=COLORS[1:])
    with pytest.raises(BundleInvalid, match="other files"):
        models.import_folder(conflicting)


def test_concurrent_imports_of_one_bundle_store_it_once(state: State, bundle: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(lambda _: state.models.import_folder(bundle).version, range(6)))
    assert set(versions) == {FIRST}
    assert [p.name for p in (state.settings.data_dir / "models").iterdir()] == [FIRST]


def test_invalid_bundle_leaves_no_files(state: State, bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"changed")
    with pytest.raises(BundleInvalid):
        state.models.import_folder(bundle)
    with pytest.raises(BundleInvalid):
        state.models.import_upload(io.BytesIO(zipped(bundle)))
    folder = state.settings.data_dir / "models"
    assert not folder.exists() or list(folder.iterdir()) == []
    assert state.models.list() == []


def test_import_that_died_before_it_reached_the_object_store_reaches_it_when_it_is_repeated(
    make_settings: MakeSettings, bundle: Path
) -> None:
    """A process on another machine finds the bundle there."""
    state = open_state(make_settings(storage_url="memory://mirror"))
    copied = shutil.copytree(bundle, state.settings.data_dir / "models" / FIRST)
    state.models.import_folder(bundle)
    shutil.rmtree(copied)
    assert read_bundle(state.models.bundle(FIRST).folder).manifest == read_bundle(bundle).manifest
    state.close()


def test_newest_activation_wins(models: ModelStore) -> None:
    assert activated(models) is None
    models.activate(FIRST, "test")
    assert activated(models) == FIRST
    models.activate(SECOND, "test")
    assert activated(models) == SECOND
    assert models.get(SECOND).state == "ready"


def test_second_rollback_undoes_the_first(models: ModelStore, state: State) -> None:
    models.activate(FIRST, "test")
    models.activate(FIRST, "again")
    with pytest.raises(NothingToRollBack):
        state.releases.rollback(None)
    models.activate(SECOND, "test")
    assert state.releases.rollback(None).version == FIRST
    assert activated(models) == FIRST
    assert state.releases.rollback(None).version == SECOND


def test_rollback_without_activations_is_rejected(state: State) -> None:
    with pytest.raises(NothingToRollBack):
        state.releases.rollback(None)


def test_failed_version_falls_back_to_the_previous_activation(models: ModelStore) -> None:
    models.activate(FIRST, "test")
    models.activate(SECOND, "test")
    models.mark(SECOND, "failed", error="probe")
    assert activated(models) == FIRST


def test_failed_version_can_be_activated_again(models: ModelStore) -> None:
    models.activate(FIRST, "test")
    models.mark(SECOND, "failed", error="probe")
    models.activate(SECOND, "again")
    assert activated(models) == SECOND
    assert (models.get(SECOND).state, models.get(SECOND).error) == ("ready", None)


@pytest.mark.parametrize("damage", ["nothing", "a file", "the manifest", "all"])
def test_import_of_a_failed_version_repairs_it(models: ModelStore, other_bundle: Path, damage: str) -> None:
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


def test_failed_version_cannot_be_replaced_by_other_files(models: ModelStore, tmp_path: Path) -> None:
    models.mark(FIRST, "failed", error="probe")
    with pytest.raises(BundleInvalid, match="other files"):
        models.import_folder(write_bundle(tmp_path / "conflicting", version=FIRST, colors=COLORS[1:]))
    assert models.get(FIRST).state == "failed"


def test_import_flushes_files_and_folders_to_disk(state: State, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and its folder, then, after the rename, the parent folder."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("the flushed paths are read from /proc")
    flushed: list[Path] = []
    fsync = os.fsync

    def recording_fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    state.models.import_folder(bundle)
    assert {p.name for p in bundle.iterdir()} <= {p.name for p in flushed}
    assert flushed[-2].name.startswith(".import-")
    assert flushed[-1] == (state.settings.data_dir / "models").absolute()


def test_mark_sets_the_state(models: ModelStore) -> None:
    models.mark(SECOND, "rejected", error="worse")
    marked = models.get(SECOND)
    assert (marked.state, marked.error, marked.miou) == ("rejected", "worse", 0.5)


def test_withdrawn_version_does_not_serve_when_the_next_one_fails(models: ModelStore) -> None:
    models.activate(FIRST, "test")
    models.activate(SECOND, "test")
    models.mark(SECOND, "withdrawn", error="errors in traffic")
    activated = models.activated()
    assert activated is not None
    assert activated.version == FIRST


def test_unknown_versions_are_not_found(models: ModelStore) -> None:
    for call in (models.get, models.bundle, lambda v: models.activate(v, "x"), lambda v: models.mark(v, "ready")):
        with pytest.raises(ModelNotFound):
            call("nothing")


def test_start_model_does_not_replace_a_later_activation(state: State, other_bundle: Path) -> None:
    state.models.ensure_start_model()
    assert activated(state.models) == FIRST
    state.models.import_folder(other_bundle)
    state.models.activate(SECOND, "promoted")
    state.models.ensure_start_model()
    assert activated(state.models) == SECOND


def test_configured_start_model_is_activated_once(state: State, bundle: Path, other_bundle: Path) -> None:
    state.models.ensure_start_model()
    state.close()
    configured = open_state(state.settings.model_copy(update={"model": str(other_bundle)}))
    configured.models.ensure_start_model()
    assert activated(configured.models) == SECOND
    configured.models.activate(FIRST, "manual")
    with capture_logs() as entries:
        configured.models.ensure_start_model()
    assert activated(configured.models) == FIRST
    (warning,) = [entry for entry in entries if entry["log_level"] == "warning"]
    assert warning["remedy"].startswith(f"POST /v1/models/{SECOND}/activate")
    configured.models.mark(FIRST, "failed", error="test")
    configured.models.mark(SECOND, "failed", error="test")
    configured.models.ensure_start_model()
    assert activated(configured.models) == SECOND
    configured.close()


def test_new_packaged_start_model_does_not_replace_an_activated_model(
    state: State, bundle: Path, other_bundle: Path
) -> None:
    class PackagedSettings(Settings):
        @property
        def start_model(self) -> Path:
            return other_bundle

    models = ModelStore(PackagedSettings(data_dir=state.settings.data_dir), state.database)
    state.models.import_folder(bundle)
    state.models.activate(FIRST, "a run")
    models.ensure_start_model()
    assert activated(models) == FIRST
    assert [m.version for m in models.list()] == [FIRST]
    models.mark(FIRST, "failed", error="test")
    models.ensure_start_model()
    assert activated(models) == SECOND
