"""Loading, unloading and what the index says; several names in one store."""

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
    """Four versions: two called tiny, of which the first is active, one rejected, and one of another name."""
    with serving(make_settings()) as running:
        models = running.state.models
        models.import_folder(write_bundle(tmp_path / "second", version=SECOND, colors=COLORS[::-1]))
        models.import_folder(write_bundle(tmp_path / "third", version="third"))
        models.mark("third", "rejected", error="worse by a tenth")
        models.import_folder(write_bundle(tmp_path / "cells", version="cells-1", name="My Cells"))
        yield running


def states(server: Server, model: str, body: Any = None) -> dict[str, str]:
    listed = server.ask("POST", "/v2/repository/index", body).json()
    return {one["version"]: one["state"] for one in listed if one["name"] == model}


def load(server: Server, model: str, what: str = "load", **parameters: Any) -> int:
    return server.ask("POST", f"/v2/repository/models/{model}/{what}", {"parameters": parameters}).status


def test_the_index_says_what_is_loaded_and_why_not(server: Server) -> None:
    assert states(server, "seg") == {"1": "READY", "2": "UNAVAILABLE", "3": "UNAVAILABLE", "4": "UNAVAILABLE"}
    assert states(server, "tiny_encoded") == {"1": "READY", "2": "UNAVAILABLE", "3": "UNAVAILABLE"}
    assert states(server, "My_Cells") == {"4": "UNAVAILABLE"}
    assert states(server, "seg", {"ready": True}) == {"1": "READY"}
    listed = server.ask("POST", "/v2/repository/index").json()
    reasons = {one["version"]: one["reason"] for one in listed if one["name"] == "seg"}
    assert reasons["1"] == ""
    assert "/v2/repository/models/seg/load" in reasons["2"]
    assert reasons["3"] == "rejected: worse by a tenth"


def test_load_and_unload_change_what_is_ready(server: Server) -> None:
    ready = "/v2/models/tiny/versions/2/ready"
    assert server.ask("GET", ready).status == 503
    assert load(server, "tiny", version="2") == 200
    assert server.ask("GET", ready).status == 200
    assert states(server, "seg")["2"] == "READY"
    assert load(server, "tiny", "unload", version=SECOND) == 200
    assert server.ask("GET", ready).status == 503
    # The active one stays, whatever it is called.
    for model in ("tiny", "tiny_encoded", "seg"):
        assert load(server, model, "unload", unload_dependents=False) == 409
    assert server.ask("GET", "/v2/models/tiny/ready").status == 200


def test_a_model_that_is_not_active_answers_by_its_own_name(server: Server) -> None:
    assert server.ask("GET", "/v2/models/My_Cells/ready").status == 503
    answer = server.infer("My_Cells", {"inputs": [tensor()]})
    assert answer.json()["model_version"] == "4"
    assert answer.headers["x-model-version"] == "cells-1"
    assert server.ask("GET", "/v2/models/My_Cells").json()["versions"] == ["4"]
    assert load(server, "My_Cells", "unload") == 200
    assert server.ask("GET", "/v2/models/My_Cells/ready").status == 503
    assert load(server, "My_Cells") == 200
    assert server.ask("GET", "/v2/models/My_Cells/ready").status == 200


def test_what_the_gate_rejected_does_not_answer(server: Server) -> None:
    answer = server.ask("POST", "/v2/models/tiny/versions/3/infer", {"inputs": [tensor()]})
    assert answer.status == 409
    assert "rejected" in answer.error
    assert load(server, "tiny", version="third") == 409
    assert "3" not in server.ask("GET", "/v2/models/tiny").json()["versions"]


def test_a_swap_reaches_the_protocol(server: Server) -> None:
    state = server.state
    state.models.activate(SECOND, "test")
    state.active_model.wake()
    eventually(lambda: state.active_model.require().version == SECOND)
    answer = server.infer("tiny", {"inputs": [tensor()]}).json()
    assert (answer["model_version"], answer["parameters"]["bundle_version"]) == ("2", SECOND)
    assert load(server, "tiny", "unload", version="2") == 409


@pytest.mark.parametrize("parameters", [{"config": "{}"}, {"file:1/model.onnx": "AAAA"}, {"version": 2}])
def test_load_takes_no_files_and_no_configuration(server: Server, parameters: dict[str, Any]) -> None:
    answer = server.ask("POST", "/v2/repository/models/seg/load", {"parameters": parameters})
    assert answer.status == 400
    assert answer.error


def test_kserves_list_and_the_first_page(server: Server) -> None:
    assert server.ask("GET", "/v2/models").json() == {
        "models": ["My_Cells", "My_Cells_encoded", "seg", "seg_bytes", "tiny", "tiny_encoded"]
    }
    about = server.ask("GET", "/v2").json()
    assert about["extensions"] == [
        *("binary_tensor_data", "model_configuration", "model_repository"),
        *("parameters", "schedule_policy", "statistics"),
    ]
    assert about["version"]
    assert server.ask("GET", "/v2/health/ready").json() == {"ready": True}
