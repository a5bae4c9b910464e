"""The folder for TensorRT: its graph gives the bundle's masks, it is whole or absent."""

import json
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest

from exporter.__main__ import main
from exporter.bundle import BundleError, read_manifest, sha256_of
from exporter.probe import scene
from exporter.runtime import OnnxPredictor
from exporter.tensorrt import engine
from exporter.tensorrt.check import check
from exporter.tensorrt.prepare import MASK_TYPES, prepare
from exporter.tensorrt.profile import usual_profile
from tests.exporter.conftest import GOLDEN


@pytest.fixture(autouse=True)
def without_nvidias_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on most machines, whatever is installed here; test_tensorrt_engine.py is with it."""
    monkeypatch.setattr(engine, "MODULES", ())


@pytest.mark.parametrize("kind", ["vit", "convnet"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_graph_is_fit_and_gives_the_bundles_masks(
    kind: str, precision: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bundle: Path = request.getfixturevalue(f"{kind}_bundle")
    out, words = tmp_path / "trt", ["--precision", precision, "--max", "2x512x640"]
    assert main(["check-tensorrt", str(bundle), "--out", str(out), *words]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["model.onnx", "tensorrt.json"]
    model = onnx.load(out / "model.onnx")
    assert check(model) == []
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    multiplied = {types.get(node.input[1]) for node in model.graph.node if node.op_type == "Conv"}
    assert multiplied == {onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.FLOAT}
    fit, plain = OnnxPredictor(out / "model.onnx", mask_types=MASK_TYPES), OnnxPredictor(bundle / "model.onnx")
    for count, height, width in [(1, 1, 1), (2, 75, 101), (1, 240, 320), (1, 9, 300)]:
        image_NHW3 = np.stack([scene(height, width, seed) for seed in range(60, 60 + count)])
        mask, confidence = fit(image_NHW3)
        expected, expected_confidence = plain(image_NHW3)
        apart, unequal = (1, 0.0005) if precision == "fp32" else (12, 0.02)
        assert np.count_nonzero(mask != expected) <= unequal * mask.size + 1
        assert np.abs(confidence.astype(int) - expected_confidence).max() <= apart


def test_the_report_says_how_and_what_was_not_done(convnet_bundle: Path, tmp_path: Path) -> None:
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
        "missing": "no TensorRT here (pip install tensorrt, or tensorrt-rtx, which needs no GPU)",
    }
    assert str(tmp_path) not in (out / "tensorrt.json").read_text(), "the folder may be taken elsewhere"
    with pytest.raises(BundleError, match="exists already"):
        prepare(convnet_bundle, manifest, out, profile, "fp16")


def test_fp32_is_multiplied_in_full(convnet_bundle: Path, tmp_path: Path) -> None:
    manifest = read_manifest(convnet_bundle)
    report = prepare(convnet_bundle, manifest, tmp_path / "trt", usual_profile(192), "fp32")
    assert "--noTF32" in report["trtexec"]


def test_the_command_says_it_in_json_and_in_words(vit_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-tensorrt", str(vit_bundle)]) == 0
    out, err = capsys.readouterr()
    event = json.loads(out)
    assert (event["event"], event["fit"], event["prepared"]) == ("done", True, None)
    assert {name: seen["fit"] for name, seen in event["graphs"].items()} == {
        "model.onnx": True,
        "model.fused.onnx": False,
    }
    assert "made fit by --out; as it is: Resize: antialias = 1" in err
    assert "not for TensorRT" in err


def test_a_bundle_that_tensorrt_would_refuse_has_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The golden bundle, made before there was a check: its graph turns bytes."""
    assert main(["check-tensorrt", str(GOLDEN), "--out", str(tmp_path / "trt")]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["fit"] is False
    assert "Transpose: takes no uint8" in err
    assert "export it again" in err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BundleError, match="Exported again"):
        prepare(GOLDEN, read_manifest(GOLDEN), tmp_path / "trt", usual_profile(0), "fp32")
    assert list(tmp_path.iterdir()) == []


def test_masks_that_came_out_otherwise_are_refused(
    vit_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.tensorrt.prepare.FP16_PROBE_AGREEMENT", 1.1)
    with pytest.raises(BundleError, match=r"nothing was written\. Try --precision fp32"):
        prepare(vit_bundle, read_manifest(vit_bundle), tmp_path / "trt", usual_profile(0), "fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-tensorrt", str(tmp_path)]) == 1
    assert "is not a bundle" in json.loads(capsys.readouterr().out)["message"]


@pytest.mark.parametrize("words", [["--max", "1080x1920"], ["--precision", "int8"]])
def test_words_that_it_does_not_know_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check-tensorrt", str(GOLDEN), *words])
    assert "as 4x1080x1920" in (said := capsys.readouterr().err) or "invalid choice" in said


def test_sizes_that_do_not_grow_are_an_error(
    vit_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path / "trt"), "--min", "1x64x64", "--max", "1x32x32"]
    assert main(["check-tensorrt", str(vit_bundle), *words]) == 1
    assert "give --min, --opt, --max" in json.loads(capsys.readouterr().out)["message"]
    assert list(tmp_path.iterdir()) == []
