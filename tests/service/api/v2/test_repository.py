"""Index, load and unload; several model names in one store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.api.v2.conftest import SECOND, Server, serving, tensor
from tests.service.conftest import MakeSettings, eventually
from tests.service.tiny_bundle import COLORS, write_bundle


@pytest.fixture
def server(make_settings: MakeSettings, tmp_path: Path) -> Iterator[Server]:
    """A service with three versions of `tiny` (the first is active, the third rejected) and one of another name."""
    with serving(make_settings()) as running:
        models = running.state.models
        models.import_folder(write_bundle(tmp_path / "second", version=SECOND, colors=COLORS[::-1]))
        models.import_folder(write_bundle(tmp_path / "third", version="third"))
        models.mark("third", "rejected", error="worse by a tenth")
        models.import_folder(write_bundle(tmp_path / "cells", version="cells-1", name="My Cells"))
        yield running


def states(server: Server, model: str, body: Any = None) -> dict[str, str]:
    listed = server.request("POST", "/v2/repository/index", body).json()
    return {one["version"]: one["state"] for one in listed if one["name"] == model}


def load(server: Server, model: str, call: str = "load", **parameters: Any) -> int:
    return server.request("POST", f"/v2/repository/models/{model}/{call}", {"parameters": parameters}).status


def test_index_lists_states_and_reasons(server: Server) -> None:
    assert states(server, "seg") == {"1": "READY", "2": "UNAVAILABLE", "3": "UNAVAILABLE", "4": "UNAVAILABLE"}
    assert states(server, "tiny_encoded") == {"1": "READY", "2": "UNAVAILABLE", "3": "UNAVAILABLE"}
    assert states(server, "My_Cells") == {"4": "UNAVAILABLE"}
    assert states(server, "seg", {"ready": True}) == {"1": "READY"}
    listed = server.request("POST", "/v2/repository/index").json()
    reasons = {one["version"]: one["reason"] for one in listed if one["name"] == "seg"}
    assert reasons["1"] == ""
    assert "/v2/repository/models/seg/load" in reasons["2"]
    assert reasons["3"] == "rejected: worse by a tenth"


def test_load_and_unload_change_readiness(server: Server) -> None:
    ready = "/v2/models/tiny/versions/2/ready"
    assert server.request("GET", ready).status == 503
    assert load(server, "tiny", version="2") == 200
    assert server.request("GET", ready).status == 200
    assert states(server, "seg")["2"] == "READY"
    assert load(server, "tiny", "unload", version=SECOND) == 200
    assert server.request("GET", ready).status == 503
    # The active version cannot be unloaded by any of its names.
    for model in ("tiny", "tiny_encoded", "seg"):
        assert load(server, model, "unload", unload_dependents=False) == 409
    assert server.request("GET", "/v2/models/tiny/ready").status == 200


def test_inactive_model_is_served_by_its_name(server: Server) -> None:
    assert server.request("GET", "/v2/models/My_Cells/ready").status == 503
    response = server.infer("My_Cells", {"inputs": [tensor()]})
    assert response.json()["model_version"] == "4"
    assert response.headers["x-model-version"] == "cells-1"
    assert server.request("GET", "/v2/models/My_Cells").json()["versions"] == ["4"]
    assert load(server, "My_Cells", "unload") == 200
    assert server.request("GET", "/v2/models/My_Cells/ready").status == 503
    assert load(server, "My_Cells") == 200
    assert server.request("GET", "/v2/models/My_Cells/ready").status == 200


def test_rejected_version_answers_only_requests_that_name_it(server: Server) -> None:
    assert load(server, "tiny", version="third") == 200
    for path, version in (("tiny/versions/3", "3"), ("tiny", "1")):
        answer = server.request("POST", f"/v2/models/{path}/infer", {"inputs": [tensor()]})
        assert answer.json()["model_version"] == version


def test_activated_version_becomes_the_default(server: Server) -> None:
    state = server.state
    state.models.activate(SECOND, "test")
    state.active_model.wake()
    eventually(lambda: state.active_model.require().version == SECOND)
    response = server.infer("tiny", {"inputs": [tensor()]}).json()
    assert (response["model_version"], response["parameters"]["bundle_version"]) == ("2", SECOND)
    assert load(server, "tiny", "unload", version="2") == 409


@pytest.mark.parametrize("parameters", [{"config": "{}"}, {"file:1/model.onnx": "AAAA"}, {"version": 2}])
def test_load_rejects_files_configuration_and_invalid_version(server: Server, parameters: dict[str, Any]) -> None:
    response = server.request("POST", "/v2/repository/models/seg/load", {"parameters": parameters})
    assert response.status == 400
    assert response.error


def test_models_and_server_metadata(server: Server) -> None:
    assert server.request("GET", "/v2/models").json() == {
        "models": ["My_Cells", "My_Cells_encoded", "seg", "seg_bytes", "tiny", "tiny_encoded"]
    }
    metadata = server.request("GET", "/v2").json()
    assert metadata["extensions"] == [
        *("binary_tensor_data", "model_configuration", "model_repository"),
        *("parameters", "schedule_policy", "statistics"),
    ]
    assert metadata["version"]
    assert server.request("GET", "/v2/health/ready").json() == {"ready": True}
