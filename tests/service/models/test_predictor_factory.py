"""Bundles with sliding windows: manifest, checks, and results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import BundleInvalid
from service.models.bundle import read_bundle
from service.models.loading import load_model
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.windows.windowed_predictor import WindowedPredictor
from service.settings import Settings
from tests.service.tiny_bundle import COLORS, add_tile, mean_color, nearest, picture, write_bundle

SETTINGS = Settings(inference_threads=2)


@pytest.mark.parametrize("size", [(7, 5), (24, 16), (61, 100)])
def test_a_manifest_with_a_tile_gives_a_windowed_predictor(bundle: Path, size: tuple[int, int]) -> None:
    add_tile(bundle, window=(24, 16))
    engine = load_model(read_bundle(bundle), SETTINGS).engine
    assert isinstance(engine, WindowedPredictor)
    assert engine.provider == "CPUExecutionProvider"
    image_HW3 = picture(*size)
    for threads in (None, 1, 2):
        np.testing.assert_array_equal(engine.run(image_HW3, threads).mask_HW, nearest(image_HW3, COLORS))
    (found,) = engine.run_batch([image_HW3])
    np.testing.assert_array_equal(found.mask_HW, nearest(image_HW3, COLORS))


def test_embedding_of_an_image_is_the_mean_over_its_windows(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", embedding=True)
    add_tile(bundle, window=(24, 16), stride=0.5, embedding=True)
    image_HW3 = picture(30, 50)
    tops, lefts = [0, 12, 24, 26], [0, 8, 14]
    windows = [mean_color(image_HW3[y : y + 24, x : x + 16]) for y in tops for x in lefts]
    mean_D = np.mean(np.asarray(windows, dtype=np.float64), axis=0)
    found_D = load_model(read_bundle(bundle), SETTINGS).engine.run(image_HW3).embedding_D
    assert found_D is not None
    assert found_D.dtype == np.float16
    np.testing.assert_allclose(found_D, mean_D / np.linalg.norm(mean_D), atol=1e-3)


def test_window_graph_without_the_manifests_embedding_is_rejected(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", embedding=True)
    add_tile(bundle, window=(24, 16))
    with pytest.raises(BundleInvalid, match="output 'embedding' is None"):
        load_model(read_bundle(bundle), SETTINGS)


def test_window_graph_with_an_undeclared_output_is_accepted(bundle: Path) -> None:
    add_tile(bundle, window=(24, 16), embedding=True)
    assert load_model(read_bundle(bundle), SETTINGS).engine.run(picture()).embedding_D is None


def test_windows_accept_images_that_the_whole_graph_rejects(bundle: Path) -> None:
    image_HW3, tight = picture(100, 80), Settings(inference_threads=1, max_native_pixels=2000)
    whole = load_model(read_bundle(bundle), tight).engine
    assert isinstance(whole, Engine)
    with pytest.raises(Exception, match="MASKLOOP_MAX_NATIVE_PIXELS"):
        whole.plan(*image_HW3.shape[:2])
    add_tile(bundle, window=(24, 16))
    windows = load_model(read_bundle(bundle), tight).engine
    assert windows.plan(*image_HW3.shape[:2]).estimated_bytes > 0
    np.testing.assert_array_equal(windows.run(image_HW3).mask_HW, nearest(image_HW3, COLORS))


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        ({"colors": COLORS[::-1]}, "not of the same model"),
        ({"colors": COLORS[:4]}, r"outputs of model\.tile\.onnx are"),
        ({"factor": 1.1}, "does not return probabilities"),
        ({"factor": float("nan")}, "does not return probabilities"),
    ],
)
def test_a_window_graph_of_another_model_is_rejected(bundle: Path, graph: dict[str, Any], says: str) -> None:
    add_tile(bundle, window=(24, 16), **graph)
    with pytest.raises(BundleInvalid, match=says):
        load_model(read_bundle(bundle), SETTINGS)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("window", [16, 24], "its manifest requires"),
        ("window", [0, 24], r"tile\.window\.0"),
        ("window", [24], r"tile\.window"),
        ("window", [24, 16.5], r"tile\.window\.1"),
        ("stride", 0, r"tile\.stride"),
        ("stride", 1.01, r"tile\.stride"),
        ("stride", "0.5", r"tile\.stride"),
        ("file", "../model.onnx", r"tile\.file"),
        ("sha256", "0" * 64, r"model\.tile\.onnx does not match"),
        ("opset", None, r"tile\.opset"),
    ],
)
def test_an_invalid_tile_in_the_manifest_is_rejected(bundle: Path, field: str, value: Any, says: str) -> None:
    add_tile(bundle, window=(24, 16))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["tile"][field] = value
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleInvalid, match=says):
        load_model(read_bundle(bundle), SETTINGS)


def test_sliding_windows_always_use_fp32(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["artifacts"].append(manifest["artifacts"][0] | {"precision": "int8", "probe_agreement": 0.5})
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    wanted = Settings(inference_threads=1, precision="int8", data_dir=bundle.parent)
    assert load_model(read_bundle(bundle), wanted).artifact.precision == "int8"
    add_tile(bundle, window=(24, 16))
    assert load_model(read_bundle(bundle), wanted).artifact.precision == "fp32"
