"""The graph that is loaded, by provider, device and setting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.models.bundle import Manifest, read_bundle
from service.models.loading import load_model
from service.models.precision import choose, has_int8_dot_product
from service.segmentation.inference.providers import CPU, CUDA, TENSORRT
from service.settings import Settings
from tests.service.tiny_bundle import write_manifest

VERSION = "20260101T000000-aaaaaaaa"


def with_artifacts(bundle: Path, *more: dict[str, Any]) -> Manifest:
    """The bundle's manifest with further graphs, all copies of its own."""
    (artifact,) = json.loads((bundle / "manifest.json").read_text())["artifacts"]
    for each in more:
        (bundle / each["file"]).write_bytes((bundle / "model.onnx").read_bytes())
    write_manifest(bundle, version=VERSION, artifacts=[artifact, *(artifact | each for each in more)])
    return read_bundle(bundle).manifest


FUSED = {"file": "model.fused.onnx", "fused_attention": 12}
HALF = {"file": "model.fp16.onnx", "precision": "fp16"}
INT8 = {"file": "model.int8.onnx", "precision": "int8", "probe_agreement": 0.9}


@pytest.mark.parametrize(
    ("wanted", "provider", "device", "file"),
    [
        ("auto", CUDA, "auto", "model.fp16.onnx"),
        ("auto", TENSORRT, "tensorrt", "model.onnx"),
        ("fp16", TENSORRT, "tensorrt", "model.onnx"),
        ("fp32", CUDA, "cuda", "model.fused.onnx"),
        ("int8", CPU, "cpu", "model.int8.onnx"),
        ("fp16", CPU, "cpu", "model.fp16.onnx"),
    ],
)
def test_the_graph_for_each_provider_and_setting(
    bundle: Path, wanted: Any, provider: str, device: Any, file: str
) -> None:
    assert choose(with_artifacts(bundle, FUSED, HALF, INT8), wanted, provider, device).file == file


@pytest.mark.parametrize(("flags", "file"), [("sse avx512_vnni fma", "model.int8.onnx"), ("sse avx2", "model.onnx")])
def test_int8_if_the_cpu_has_dot_products(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, file: str
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags : {flags}\n")
    assert has_int8_dot_product(info) == ("vnni" in flags)
    monkeypatch.setattr("service.models.precision.has_int8_dot_product", lambda: has_int8_dot_product(info))
    assert choose(with_artifacts(bundle, INT8), "auto", CPU, "auto").file == file


def test_fp32_if_the_cpu_is_unknown(tmp_path: Path) -> None:
    assert not has_int8_dot_product(tmp_path / "no such file")


def test_fp32_if_the_bundle_lacks_the_wanted_precision(bundle: Path) -> None:
    assert choose(with_artifacts(bundle), "int8", CPU, "cpu").precision == "fp32"


def test_a_graph_is_tested_with_its_own_tolerance(bundle: Path) -> None:
    """The tolerance of the probe is for fp32."""
    with_artifacts(bundle, INT8)
    loaded = load_model(read_bundle(bundle), Settings(inference_threads=1, precision="int8", data_dir=bundle.parent))
    assert (loaded.artifact.file, loaded.artifact.probe_agreement) == ("model.int8.onnx", 0.9)
