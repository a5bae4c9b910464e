"""A bundle whose run judged by a sliding window is served by it, as the trainer evaluates."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.export import export
from exporter.probe import scene
from service.models.bundle import read_bundle
from service.models.loading import load_model
from service.segmentation.inference.predictor import Predictor
from service.segmentation.inference.windows.windowed_predictor import WindowedPredictor
from service.settings import Settings
from tests.exporter.conftest import TINY_VIT, make_checkpoint
from trainer.checkpoint import load
from trainer.config import Inference
from trainer.evaluation.inference import most_likely
from trainer.models.segmenter import Segmenter

WINDOW, STRIDE = (48, 64), 2 / 3
SIZES = {
    "smaller than a window": (30, 40),
    "one window": WINDOW,
    "no multiples": (101, 150),
    "long": (20, 333),
    "thin": (333, 20),
    "one pixel": (1, 1),
}


@dataclass(frozen=True)
class Pair:
    network: Segmenter
    rule: Inference
    served: Predictor


def served(bundle: Path) -> Predictor:
    return load_model(read_bundle(bundle), Settings(inference_threads=1)).engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and its bundle."""
    folder = tmp_path_factory.mktemp("sliding")
    rule = {"window": list(WINDOW), "window_stride": STRIDE}
    export(make_checkpoint(folder / "model.safetensors", TINY_VIT, **rule), folder / "bundle", with_checkpoint=False)
    return folder


@pytest.fixture(scope="module")
def native(folder: Path) -> Pair:
    network = load(folder / "model.safetensors").model.eval()
    return Pair(network, Inference(window=WINDOW, window_stride=STRIDE), served(folder / "bundle"))


@pytest.fixture(scope="module")
def resizing(native: Pair, folder: Path) -> Pair:
    """The same with another rule: the window's graph knows nothing of long sides."""
    bundle = shutil.copytree(folder / "bundle", folder / "resizing")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["inference"]["long_side"], manifest["tile"]["stride"] = 120, 0.5
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return Pair(native.network, Inference(window=WINDOW, window_stride=0.5, long_side=120), served(bundle))


def differences(pair: Pair, size: tuple[int, int]) -> tuple[float, float]:
    """The share of pixels whose class differs, and the mean difference of a confidence in steps of 1/255."""
    image_HW3 = scene(*size, seed=5)
    found = pair.served.run(image_HW3)
    with torch.inference_mode():
        mask_1HW, confidence_1HW = most_likely(pair.network, torch.from_numpy(image_HW3.copy())[None], pair.rule)
    apart_HW = np.abs(found.confidence_HW.astype(int) - confidence_1HW[0].numpy() * 255)
    return float(np.mean(found.mask_HW != mask_1HW[0].numpy())), float(apart_HW.mean())


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_at_the_images_own_size_masks_are_the_trainers(native: Pair, size: tuple[int, int]) -> None:
    differing, apart = differences(native, size)
    assert differing <= 1e-4, "rounding alone, at ties"
    assert apart <= 0.51, "for being whole steps"


@pytest.mark.parametrize("size", [*SIZES.values(), (90, 300)], ids=[*SIZES, "made smaller"])
def test_after_a_resize_they_differ_by_fractions_of_a_pixels_value(resizing: Pair, size: tuple[int, int]) -> None:
    """The trainer keeps what lies between two of 256 levels; a graph of whole levels cannot (BUNDLE.md).

    The network is a random one, which is no smoother than it has to be: a trained one differs by less.
    """
    differing, apart = differences(resizing, size)
    assert differing <= 0.01
    assert apart < 1


def test_whole_images_would_be_another_answer(native: Pair) -> None:
    """Else the comparisons above would say little."""
    image_HW3 = scene(*SIZES["no multiples"], seed=5)
    with torch.inference_mode():
        whole_1HW, _ = most_likely(native.network, torch.from_numpy(image_HW3.copy())[None], Inference())
    assert isinstance(native.served, WindowedPredictor)
    assert np.mean(native.served.run(image_HW3).mask_HW != whole_1HW[0].numpy()) > 0.01
