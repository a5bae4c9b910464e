"""The real trainer and the real exporter, with a network of a few thousand weights: from images to served masks."""

from __future__ import annotations

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
def beginner(tmp_path: Path) -> Path:
    """A model that errs, and knows what network to train in its place."""
    provenance = {"parent": None, "recipe": RECIPE, "data_fingerprint": "none", "code_version": "test"}
    colors = (*COLORS[1:], COLORS[0])
    return write_bundle(tmp_path / "bundle", version=BAD, colors=colors, classes=CLASSES, provenance=provenance)


def wait_for_run(client: httpx.Client, number: int) -> dict[str, Any]:
    """The `number`-th run, when it is over."""

    def over() -> bool:
        runs = client.get("/v1/runs").json()["runs"]
        return len(runs) == number and runs[0]["status"] not in {"queued", "running"}

    eventually(over, within_s=240)
    run: dict[str, Any] = client.get("/v1/runs").json()["runs"][0]
    assert run["status"] == "succeeded", run["error"]
    return run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_labels_and_images_become_a_better_model_twice(
    up: Callable[..., Group], beginner: Path, tmp_path: Path
) -> None:
    pytest.importorskip("trainer.config", reason="the trainer is not installed here")
    pytest.importorskip("exporter.export", reason="the exporter is not installed here")
    template = tmp_path / "recipe.toml"
    template.write_text(tomli_w.dumps({"method": "unimatch_v2", "train": {"steps": 8, "save_every": 4}}))
    group = up(
        "--model",
        str(beginner),
        retrain_after_images=4,
        min_labelled_images=2,
        recipe=template,
        # The second run shall be activated even if eight steps do not make the model better.
        gate_tolerance_miou=0.5,
        precision="int8",
    )
    url = group.ready()
    image = encoded(picture(seed=50))
    with group.client(timeout=60) as client, BackgroundClient(url, image, 0.05) as background:
        send_pool(client, unlabelled=4)
        first = wait_for_run(client, 1)
        eventually(lambda: first["candidate_version"] in background.counts.by_version, within_s=30)
        for seed in range(60, 64):
            client.post("/v1/images", content=encoded(picture(seed=seed))).raise_for_status()
        second = wait_for_run(client, 2)
        eventually(lambda: second["candidate_version"] in background.counts.by_version, within_s=30)
        models = client.get("/v1/models").json()
        answer = client.post("/v1/segment", content=encoded(picture(seed=70)))
    # Eight steps teach little, and so there is little for int8 to lose.
    assert answer.headers["X-Model-Precision"] == "int8"
    assert background.counts.failures == []
    versions = [BAD, first["candidate_version"], second["candidate_version"]]
    assert list(background.counts.by_version) == versions
    assert models["serving"] == versions[-1]
    assert [model["parent"] for model in models["models"]] == [versions[1], versions[0], None]
    recipe = tomllib.loads((group.data_dir / "runs" / first["id"] / "train" / "recipe.toml").read_text())
    assert (recipe["init"], recipe["model"]["encoder"]) == ("", "vit_tiny_patch16_224")
    # The second goes on from the first one's weights.
    recipe = tomllib.loads((group.data_dir / "runs" / second["id"] / "train" / "recipe.toml").read_text())
    assert recipe["init"] == str((group.data_dir / "models" / versions[1] / "model.safetensors").absolute())
    assert recipe["data"]["crop"] == [48, 48]
    assert recipe["train"]["lr_encoder"] == 0.001
