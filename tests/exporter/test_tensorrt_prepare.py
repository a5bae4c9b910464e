"""`check-tensorrt` without NVIDIA's library: the folder's masks, its report, and the message about the check."""

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from exporter.__main__ import main
from exporter.bundle import BundleError, read_manifest, sha256_of
from exporter.probe import embedding_cosine, scene
from exporter.runtime import OnnxPredictor
from exporter.tensorrt import engine
from exporter.tensorrt.prepare import MASK_TYPES, prepare
from exporter.tensorrt.profile import usual_profile
from tests.exporter.conftest import GOLDEN

MISSING = (
    "The check needs NVIDIA's TensorRT parser, which is not installed: run `pip install tensorrt-rtx` (needs no "
    "GPU) or `pip install tensorrt`"
)


@pytest.fixture(autouse=True)
def without_nvidias_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the library; test_tensorrt_engine.py runs with it."""
    monkeypatch.setattr(engine, "MODULES", ())


@pytest.mark.parametrize("kind", ["vit", "convnet"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_rewritten_graph_gives_the_bundles_masks(
    kind: str, precision: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bundle: Path = request.getfixturevalue(f"{kind}_bundle")
    out, options = tmp_path / "trt", ["--precision", precision, "--max", "2x512x640"]
    assert main(["check-tensorrt", str(bundle), "--out", str(out), *options]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["model.onnx", "tensorrt.json"]
    model = onnx.load(out / "model.onnx")
    assert not any(value.i for node in model.graph.node for value in node.attribute if value.name == "antialias")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = {types.get(node.input[1]) for node in model.graph.node if node.op_type == "Conv"}
    assert weights == {onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.FLOAT}
    rewritten, plain = OnnxPredictor(out / "model.onnx", mask_types=MASK_TYPES), OnnxPredictor(bundle / "model.onnx")
    for count, height, width in [(1, 1, 1), (2, 75, 101), (1, 240, 320), (1, 9, 300)]:
        image_NHW3 = np.stack([scene(height, width, seed) for seed in range(60, 60 + count)])
        mask, confidence, embedding = rewritten(image_NHW3)
        expected, expected_confidence, expected_embedding = plain(image_NHW3)
        assert embedding is not None
        assert embedding.dtype == np.float16
        assert (embedding_cosine(list(embedding), list(np.asarray(expected_embedding))) or 0) > 0.9999
        apart, unequal = (1, 0.0005) if precision == "fp32" else (12, 0.02)
        assert np.count_nonzero(mask != expected) <= unequal * mask.size + 1
        assert np.abs(confidence.astype(int) - expected_confidence).max() <= apart


def test_the_report_has_the_sizes_the_command_and_what_is_missing(convnet_bundle: Path, tmp_path: Path) -> None:
    manifest, out = read_manifest(convnet_bundle), tmp_path / "deep" / "trt"
    profile = usual_profile(manifest.inference.long_side)
    report = prepare(convnet_bundle, manifest, out, profile, "fp16")
    assert json.loads((out / "tensorrt.json").read_text()) == json.loads(json.dumps(report))
    assert (report["bundle"], report["sha256"]) == (manifest.version, sha256_of(out / "model.onnx"))
    assert report["profile"] == {"min": (1, 1, 1, 3), "opt": (1, 144, 192, 3), "max": (4, 2048, 2048, 3)}
    assert shlex.split(report["trtexec"]) == [
        "trtexec",
        "--onnx=model.onnx",
        "--saveEngine=model.plan",
        "--stronglyTyped",
        "--minShapes=image:1x1x1x3",
        "--optShapes=image:1x144x192x3",
        "--maxShapes=image:4x2048x2048x3",
    ]
    assert 0.98 <= report["onnxruntime_agreement"] <= 1
    assert report["engine"] == {
        "built_by": None,
        "bytes": None,
        "agreement": None,
        "missing": MISSING,
    }
    assert report["checked_by"] is None
    assert str(tmp_path) not in (out / "tensorrt.json").read_text(), "the folder may be moved"
    with pytest.raises(BundleError, match="exists already"):
        prepare(convnet_bundle, manifest, out, profile, "fp16")


def test_fp32_disables_tf32(convnet_bundle: Path, tmp_path: Path) -> None:
    manifest = read_manifest(convnet_bundle)
    report = prepare(convnet_bundle, manifest, tmp_path / "trt", usual_profile(192), "fp32")
    assert "--noTF32" in report["trtexec"]


def test_check_without_the_parser_fails_with_the_remedy(vit_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-tensorrt", str(vit_bundle)]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"event": "error", "message": MISSING}
    assert err == f"error: {MISSING}\n"


def test_folder_without_the_parser_is_reported_as_unchecked(
    vit_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-tensorrt", str(vit_bundle), "--out", str(tmp_path / "trt")]) == 0
    out, err = capsys.readouterr()
    event = json.loads(out)
    assert (event["event"], event["fit"], event["checked_by"], event["graphs"]) == ("done", None, None, {})
    assert event["prepared"]["checked_by"] is None
    assert f"the graph is unchecked. {MISSING}" in err


def test_a_library_that_finds_no_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def builder(_logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    module = SimpleNamespace(
        __version__="10.15", Builder=builder, ILogger=type("ILogger", (), {"ERROR": 1, "INTERNAL_ERROR": 0})
    )
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(engine, "MODULES", ("tensorrt",))
    with pytest.raises(engine.TensorRTUnavailableError, match=r"tensorrt 10\.15 needs a GPU .*tensorrt-rtx"):
        engine.find_library()


def test_masks_that_differ_from_the_probe_are_an_error(
    vit_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.tensorrt.prepare.FP16_PROBE_AGREEMENT", 1.1)
    with pytest.raises(BundleError, match=r"nothing was written\. Try --precision fp32"):
        prepare(vit_bundle, read_manifest(vit_bundle), tmp_path / "trt", usual_profile(0), "fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_bundle_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-tensorrt", str(tmp_path)]) == 1
    assert "is not a bundle" in json.loads(capsys.readouterr().out)["message"]


@pytest.mark.parametrize("options", [["--max", "1080x1920"], ["--precision", "int8"]])
def test_invalid_options_are_rejected(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check-tensorrt", str(GOLDEN), *options])
    assert "as 4x1080x1920" in (message := capsys.readouterr().err) or "invalid choice" in message


def test_a_maximum_below_the_minimum_is_an_error(
    vit_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--out", str(tmp_path / "trt"), "--min", "1x64x64", "--max", "1x32x32"]
    assert main(["check-tensorrt", str(vit_bundle), *options]) == 1
    assert "give --min, --opt, --max" in json.loads(capsys.readouterr().out)["message"]
    assert list(tmp_path.iterdir()) == []
