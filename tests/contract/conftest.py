"""Exported networks that several tests share, and the start of a service process.

Tests without torch import this module too, so the fixtures import the trainer and the exporter themselves.
"""

import io
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

START_TIMEOUT_S = 60
SMALL_HEAD = {"weights": "none", "features": 8, "projections": [8, 8, 8, 8]}
DINOV2 = SMALL_HEAD | {
    "encoder": "vit_small_patch14_dinov2",
    "encoder_options": {"depth": 2, "embed_dim": 16, "num_heads": 1, "img_size": 70},
}
RESNET = SMALL_HEAD | {"encoder": "test_resnet"}
CONVNEXT = SMALL_HEAD | {"encoder": "test_convnext", "encoder_options": {"depths": [1, 1, 1, 1]}}
WINDOW, STRIDE = (56, 70), 2 / 3
"""Sliding-window inference: height and width in pixels, and the step as a fraction of them."""


@dataclass(frozen=True)
class Exported:
    """A checkpoint and the bundle that was exported from it."""

    checkpoint: Path
    bundle: Path


@pytest.fixture(scope="session")
def windowed_dinov2(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A DINOv2 network with random weights whose bundle runs in sliding windows."""
    inference = {"window": list(WINDOW), "window_stride": STRIDE}
    return _export_random(tmp_path_factory.mktemp("windowed_dinov2"), DINOV2, **inference)


@pytest.fixture(scope="session")
def dinov2(windowed_dinov2: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same network; its bundle has no window graph, so that images are processed whole."""
    bundle = tmp_path_factory.mktemp("dinov2") / "bundle"
    shutil.copytree(windowed_dinov2.bundle, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / manifest.pop("tile")["file"]).unlink()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return Exported(windowed_dinov2.checkpoint, bundle)


@pytest.fixture(scope="session")
def convnext(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A ConvNeXt with random weights."""
    return _export_random(tmp_path_factory.mktemp("convnext"), CONVNEXT)


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two classes that differ in colour."""
    from tests.trainer.conftest import write_dataset

    return write_dataset(tmp_path_factory.mktemp("data") / "two_classes", val=4, size=100)


@pytest.fixture(scope="session")
def trained_resnet(two_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A ResNet that was trained on `two_classes` for a few steps; it resizes images to a long side of 240 pixels."""
    from exporter.export import export
    from trainer.events import Events
    from trainer.recipe_file import recipe_from_dict
    from trainer.train import train

    folder = tmp_path_factory.mktemp("trained_resnet")
    recipe = recipe_from_dict(
        {
            "method": "supervised",
            "data": {"root": str(two_classes), "crop": [64, 64]},
            "model": RESNET,
            # Without the moving average: a teacher would still be half the untrained network.
            "train": {
                "steps": 30,
                "batch_labelled": 4,
                "lr_encoder": 3e-3,
                "lr_head_factor": 10.0,
                "ema_decay": 0,
                "device": "cpu",
                "report": False,
            },
            "inference": {"long_side": 240},
        }
    )
    with Events(stream=io.StringIO()) as events:
        checkpoint = train(recipe, folder / "run", events)
    export(checkpoint, folder / "bundle", with_checkpoint=False)
    return Exported(checkpoint, folder / "bundle")


def _export_random(folder: Path, model: dict[str, Any], **inference: Any) -> Exported:
    from exporter.export import export
    from tests.exporter.conftest import make_checkpoint

    checkpoint = make_checkpoint(folder / "model.safetensors", model, **inference)
    export(checkpoint, folder / "bundle", with_checkpoint=False)
    return Exported(checkpoint, folder / "bundle")


def free_port() -> int:
    """Return a port of the loopback address on which no program listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    """Return once /readyz answers 200; fail if the process ends first or the time limit is exceeded."""
    for _ in range(START_TIMEOUT_S * 20):
        assert process.poll() is None, "the service ended while it started"
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    pytest.fail(f"the service was not ready after {START_TIMEOUT_S} s")
