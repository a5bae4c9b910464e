"""The service runs sliding windows as the trainer evaluates them."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.probe import scene
from service.models.bundle import read_bundle
from service.models.loading import load_model
from service.segmentation.inference.predictor import Predictor
from service.segmentation.inference.windows.windowed_predictor import WindowedPredictor
from service.settings import Settings
from tests.contract.conftest import STRIDE, WINDOW, Exported
from trainer.checkpoint import load
from trainer.config import Inference
from trainer.evaluation.inference import most_likely
from trainer.models.segmenter import Segmenter

SIZES = {
    "smaller than a window": (30, 40),
    "one window": WINDOW,
    "no multiples": (101, 150),
    "long": (20, 333),
    "thin": (333, 20),
    "one pixel": (1, 1),
}
"""Height and width."""


@dataclass(frozen=True)
class Pair:
    """A network with the trainer's inference rule, and the service's predictor of its bundle."""

    network: Segmenter
    rule: Inference
    served: Predictor


def load_predictor(bundle: Path) -> Predictor:
    return load_model(read_bundle(bundle), Settings(inference_threads=1)).engine


@pytest.fixture(scope="module")
def native(windowed_dinov2: Exported) -> Pair:
    network = load(windowed_dinov2.checkpoint).model.eval()
    return Pair(network, Inference(window=WINDOW, window_stride=STRIDE), load_predictor(windowed_dinov2.bundle))


@pytest.fixture(scope="module")
def resizing(native: Pair, windowed_dinov2: Exported, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The same network with another stride and a resize; the window's graph depends on neither."""
    bundle = shutil.copytree(windowed_dinov2.bundle, tmp_path_factory.mktemp("resizing") / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["inference"]["long_side"], manifest["tile"]["stride"] = 120, 0.5
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return Pair(native.network, Inference(window=WINDOW, window_stride=0.5, long_side=120), load_predictor(bundle))


def differences(pair: Pair, size: tuple[int, int]) -> tuple[float, float]:
    """Return the fraction of pixels whose class differs, and the mean difference of confidence in steps of 1/255."""
    image_HW3 = scene(*size, seed=5)
    found = pair.served.run(image_HW3)
    with torch.inference_mode():
        mask_1HW, confidence_1HW = most_likely(pair.network, torch.from_numpy(image_HW3.copy())[None], pair.rule)
    steps_HW = np.abs(found.confidence_HW.astype(int) - confidence_1HW[0].numpy() * 255)
    return float(np.mean(found.mask_HW != mask_1HW[0].numpy())), float(steps_HW.mean())


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_masks_equal_the_trainers_at_native_size(native: Pair, size: tuple[int, int]) -> None:
    differing, steps = differences(native, size)
    assert differing <= 1e-4, "only ties may be rounded differently"
    assert steps <= 0.51, "confidence is rounded to whole steps"


@pytest.mark.parametrize("size", [*SIZES.values(), (90, 300)], ids=[*SIZES, "downscaled"])
def test_masks_nearly_equal_the_trainers_after_a_resize(resizing: Pair, size: tuple[int, int]) -> None:
    """The trainer resizes in floating point, the service to uint8 (BUNDLE.md).

    A random network reacts to the rounding more strongly than a trained one.
    """
    differing, steps = differences(resizing, size)
    assert differing <= 0.01
    assert steps < 1


def test_windows_and_whole_images_give_different_masks(native: Pair) -> None:
    """Otherwise the comparisons above would prove nothing."""
    image_HW3 = scene(*SIZES["no multiples"], seed=5)
    with torch.inference_mode():
        whole_1HW, _ = most_likely(native.network, torch.from_numpy(image_HW3.copy())[None], Inference())
    assert isinstance(native.served, WindowedPredictor)
    assert np.mean(native.served.run(image_HW3).mask_HW != whole_1HW[0].numpy()) > 0.01
