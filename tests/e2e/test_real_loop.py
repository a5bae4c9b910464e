"""The whole loop with the real trainer and exporter and a network of a few thousand weights."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import tomli_w

from demo.client import BackgroundClient
from tests.e2e.conftest import Group
from tests.e2e.test_up import send_pool
from tests.service.conftest import encoded, eventually
from tests.service.runs.conftest import BAD, CLASSES
from tests.service.tiny_bundle import COLORS, picture, write_bundle

RECIPE: dict[str, Any] = {
    "method": "unimatch_v2",
    "data": {"root": "", "crop": [48, 48], "scale": [0.8, 1.2]},
    "model": {
        "encoder": "vit_tiny_patch16_224",
        "encoder_options": {"depth": 2, "embed_dim": 24, "num_heads": 2, "patch_size": 8},
        "weights": "none",
        "features": 8,
        "projections": [8, 8, 8, 8],
    },
    "train": {"steps": 12, "batch_labelled": 2, "batch_unlabelled": 2, "lr_encoder": 0.001, "save_every": 4},
}


@pytest.fixture
def start_bundle(tmp_path: Path) -> Path:
    """A bundle whose model predicts wrong classes and whose recipe names the network to train."""
    provenance = {"parent": None, "recipe": RECIPE, "data_fingerprint": "none", "code_version": "test"}
    colors = (*COLORS[1:], COLORS[0])
    return write_bundle(tmp_path / "bundle", version=BAD, colors=colors, classes=CLASSES, provenance=provenance)


def run_is_over(client: httpx.Client) -> bool:
    runs = client.get("/v1/runs").json()["runs"]
    return bool(runs) and runs[0]["status"] not in {"queued", "running"}


def check_records(client: httpx.Client, run: dict[str, Any]) -> None:
    """Check what a finished run of the real trainer leaves behind."""
    path = f"/v1/runs/{run['id']}"
    assert {"maskloop", "python", "torch", "timm", "platform", "cpu", "device"} <= run["environment"].keys()
    history = client.get(f"{path}/history").raise_for_status().json()
    assert history["progress"][-1]["step"] == 8
    assert history["progress"][-1]["loss"] > 0
    assert 0 <= history["evaluations"][-1]["miou"] <= 1
    assert "trainer train" in client.get(f"{path}/log").raise_for_status().text
    assert tomllib.loads(client.get(f"{path}/recipe").raise_for_status().text)["train"]["steps"] == 8
    report = client.get(f"{path}/report").raise_for_status()
    # What the policy of the report forbids is not in it.
    assert re.findall(r"<script|<link|@import|src=.http", report.text) == []
    made = client.get(f"/v1/models/{run['candidate_version']}/provenance").raise_for_status().json()
    assert (made["run"]["id"], made["ancestors"][0]["version"]) == (run["id"], BAD)
    assert made["snapshot"]["unlabelled"] == 4
    assert made["bundle"]["recipe"]["seed"] == 0


def recipe_of(group: Group, run_id: str) -> dict[str, Any]:
    return tomllib.loads((group.data_dir / "runs" / run_id / "train" / "recipe.toml").read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_images_become_a_better_model_from_which_the_next_run_continues(
    up: Callable[..., Group], start_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("trainer.config", reason="the trainer is not installed")
    pytest.importorskip("exporter.export", reason="the exporter is not installed")
    template = tmp_path / "recipe.toml"
    template.write_text(tomli_w.dumps({"method": "unimatch_v2", "train": {"steps": 8, "save_every": 4}}))
    settings = {"retrain_after_images": 4, "min_labelled_images": 2, "recipe": template, "precision": "int8"}
    # A few steps make no good model.
    settings["gate_margin_miou"] = 1
    group = up("--model", str(start_bundle), **settings)
    url, image = group.ready(), encoded(picture(seed=50))
    with group.client(timeout=60) as client, BackgroundClient(url, image, 0.1) as background:
        send_pool(client, unlabelled=4)
        eventually(lambda: run_is_over(client), within_s=240)
        first = client.get("/v1/runs").json()["runs"][0]
        assert first["status"] == "judged", first["error"]
        eventually(lambda: first["candidate_version"] in background.counts.by_version, within_s=30)
        check_records(client, first)
        response = client.post("/v1/segment", content=encoded(picture(seed=70)))
        models = client.get("/v1/models").json()
        second = client.post("/v1/runs").raise_for_status().json()
        with client.stream("GET", f"/v1/runs/{second['id']}/events") as events:
            assert any("progress" in line for line in events.iter_lines())
        client.post(f"/v1/runs/{second['id']}/cancel").raise_for_status()
        eventually(lambda: run_is_over(client), within_s=60)
    assert background.counts.failures == []
    versions = [BAD, first["candidate_version"]]
    assert list(background.counts.by_version) == versions
    assert response.headers["X-Model-Precision"] == "int8"
    assert models["serving"] == versions[1]
    assert [model["parent"] for model in models["models"]] == [versions[0], None]
    recipe = recipe_of(group, first["id"])
    assert (recipe["init"], recipe["model"]["encoder"]) == ("", "vit_tiny_patch16_224")
    recipe = recipe_of(group, second["id"])
    assert recipe["init"] == str((group.data_dir / "models" / versions[1] / "model.safetensors").absolute())
    assert recipe["data"]["crop"] == [48, 48]
    assert recipe["train"]["lr_encoder"] == 0.001
