"""A model that cannot be loaded: the fault of the machine or of the bundle, and how to recover."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.errors import NoModel
from service.models.active_model import ActiveModel
from service.models.bundle import Bundle
from service.models.loading import LoadedModel, load_model
from service.settings import Settings
from service.state import State
from tests.service.conftest import MakeSettings, encoded, eventually
from tests.service.models.test_active_model import FIRST, IMAGE, SECOND, damage_probe
from tests.service.tiny_bundle import zipped


def test_a_missing_device_does_not_mark_the_model_as_failed(
    state: State, active_model: ActiveModel, make_settings: MakeSettings
) -> None:
    """CUDA is required and missing: a process with other settings may still serve the model."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA in its onnxruntime")
    state.models.activate(FIRST, "test")
    unable = ActiveModel(make_settings(device="cuda"), state.models, state.metrics)
    unable.refresh()
    with pytest.raises(NoModel, match="The device is cuda"):
        unable.require()
    assert state.models.get(FIRST).state == "ready"
    active_model.refresh()
    assert active_model.require().version == FIRST


@pytest.mark.parametrize("failure", [OSError(24, "Too many open files"), MemoryError(), RuntimeError("unexpected")])
def test_a_temporary_failure_is_retried_after_a_delay(
    active_model: ActiveModel, state: State, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    attempts = 0

    def failing(bundle: Bundle, settings: Settings) -> LoadedModel:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise failure
        return load_model(bundle, settings)

    monkeypatch.setattr("service.models.active_model.load_model", failing)
    state.models.activate(FIRST, "test")
    for _ in range(5):
        active_model.refresh()
    assert attempts == 1
    assert FIRST in (active_model.error or "")
    assert state.models.get(FIRST).state == "ready"
    # A new activation is tried at once.
    active_model.wake()
    active_model.refresh()
    assert attempts == 2
    active_model.start()
    eventually(lambda: active_model.current is not None)
    # The error is cleared before the model becomes visible.
    assert active_model.error is None
    assert attempts == 3


def test_a_rollback_clears_the_error_of_the_other_model(active_model: ActiveModel, state: State) -> None:
    state.models.activate(FIRST, "test")
    active_model.refresh()
    folder = state.models.bundle(SECOND).folder
    # A symbolic link to itself: the file exists and cannot be opened.
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("model.onnx")
    state.models.activate(SECOND, "test")
    active_model.refresh()
    assert active_model.require().version == FIRST
    assert "check the disk" in (active_model.error or "")
    assert state.models.get(SECOND).state == "ready"
    state.releases.rollback(None)
    active_model.refresh()
    assert active_model.error is None


def test_a_limit_of_this_machine_does_not_mark_the_model_as_failed(state: State, active_model: ActiveModel) -> None:
    state.models.activate(FIRST, "test")
    tight = ActiveModel(state.settings.model_copy(update={"max_inference_bytes": 1000}), state.models, state.metrics)
    tight.refresh()
    assert "MASKLOOP_MAX_INFERENCE_BYTES" in (tight.error or "")
    assert state.models.get(FIRST).state == "ready"


def test_a_failed_model_can_be_activated_again_or_replaced_over_http(client: TestClient, other_bundle: Path) -> None:
    packed = zipped(other_bundle)
    client.post("/v1/models", content=packed)
    state: State = client.app_state["maskloop"]
    damage_probe(state.models.bundle(SECOND).folder, SECOND)
    client.post(f"/v1/models/{SECOND}/activate")
    eventually(lambda: client.get(f"/v1/models/{SECOND}").json()["state"] == "failed")
    refused = client.post("/v1/segment", params={"model": SECOND}, content=encoded(IMAGE))
    assert refused.status_code == 409
    assert "activate" in refused.json()["detail"]
    # A second activation runs the probe again, with the same result.
    assert client.post(f"/v1/models/{SECOND}/activate").status_code == 409
    with (
        np.load(state.models.bundle(SECOND).folder / "probe.npz") as arrays,
        np.load(other_bundle / "probe.npz") as right,
    ):
        assert not np.array_equal(arrays["mask_0"], right["mask_0"])
    # The stored bundle matches its own checksums, so the upload counts as another bundle with the same version.
    assert client.post("/v1/models", content=packed).status_code == 422
    shutil.rmtree(state.models.bundle(SECOND).folder)
    assert client.post("/v1/models", content=packed).json()["state"] == "ready"
    eventually(lambda: client.get("/readyz").json()["model"] == SECOND)
