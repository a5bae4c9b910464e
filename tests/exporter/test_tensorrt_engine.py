"""NVIDIA's own parser and builder on bundles' graphs. Skipped if the wheel is not installed.

TensorRT for RTX parses and builds without a GPU. `make tensorrt` installs it, or:

    uv pip install --target .venv/tensorrt tensorrt-rtx==1.7.1.116
    PYTHONPATH=.venv/tensorrt python -m pytest tests/exporter/test_tensorrt_engine.py
"""

import json
from pathlib import Path

import onnx
import onnx.parser
import pytest

from exporter.__main__ import main
from exporter.bundle import BundleError, read_manifest
from exporter.graph import write_graph
from exporter.tensorrt.engine import (
    Library,
    TensorRTUnavailableError,
    build,
    find_library,
    load_predictor,
    parse_errors,
)
from exporter.tensorrt.prepare import check_graphs, prepare
from exporter.tensorrt.profile import Profile, usual_profile
from exporter.tensorrt.rewrite import for_tensorrt
from tests.exporter.conftest import GOLDEN, TINY_VIT, make_checkpoint
from tests.exporter.test_tensorrt_rewrite import ManyClasses

SMALL = ["--max", "2x256x256", "--opt", "1x96x128"]
DINO = {
    "encoder": "vit_small_patch14_dinov2",
    "encoder_options": {"depth": 4, "embed_dim": 24, "num_heads": 2, "img_size": 70},
    "weights": "none",
    "features": 8,
    "projections": [8, 8, 8, 8],
}


@pytest.fixture
def library() -> Library:
    try:
        return find_library()
    except TensorRTUnavailableError as error:
        pytest.skip(f"{error}; make tensorrt")


@pytest.fixture(scope="module")
def dino_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from exporter.export import export

    folder = tmp_path_factory.mktemp("dino")
    export(make_checkpoint(folder / "model.safetensors", DINO), folder / "bundle", with_checkpoint=False)
    return folder / "bundle"


def graph(body: str, *, image: str = "float[N,3,H,W]", output: str = "float[n,c,h,w] y", opset: int = 20) -> bytes:
    """A serialised model of one image input and one output."""
    text = f'<ir_version: 10, opset_import: ["" : {opset}, "com.example" : 1]> g ({image} image) => ({output})'
    serialised: bytes = onnx.parser.parse_model(f"{text} {{ {body} }}").SerializeToString()
    return serialised


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("kind", ["vit", "convnet", "dino"])
def test_engine_is_built_from_each_kind_of_bundle(
    kind: str, precision: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bundle: Path = request.getfixturevalue(f"{kind}_bundle")
    out = tmp_path / "trt"
    assert main(["check-tensorrt", str(bundle), "--out", str(out), "--precision", precision, *SMALL]) == 0
    report = json.loads((out / "tensorrt.json").read_text())
    engine = report["engine"]
    assert engine["built_by"] == report["checked_by"]
    assert engine["built_by"].startswith("tensorrt")
    assert engine["bytes"] == (out / "model.plan").stat().st_size > 10_000
    assert engine["missing"] == "not run: no GPU" if engine["agreement"] is None else engine["agreement"] > 0.98


def test_plain_and_fused_graph_are_accepted_after_the_rewrite(library: Library, vit_bundle: Path) -> None:
    plain, fused = check_graphs(vit_bundle, read_manifest(vit_bundle), library)
    assert (plain.file, plain.rewritten, plain.is_fit) == ("model.onnx", True, True)
    assert "Resize" in plain.obstacles
    assert fused.file == "model.fused.onnx"
    if library.name == "tensorrt_rtx":  # its parser has com.microsoft's MultiHeadAttention
        assert (fused.rewritten, fused.is_fit) == (True, True)


def test_the_graph_of_a_window_is_accepted(library: Library, tmp_path: Path) -> None:
    from exporter.export import export

    checkpoint = make_checkpoint(tmp_path / "model.safetensors", TINY_VIT, window=[48, 64], window_stride=0.5)
    export(checkpoint, tmp_path / "bundle", with_checkpoint=False)
    verdicts = check_graphs(tmp_path / "bundle", read_manifest(tmp_path / "bundle"), library)
    assert [verdict.file for verdict in verdicts] == ["model.onnx", "model.fused.onnx", "model.tile.onnx"]
    assert all(verdict.is_fit for verdict in verdicts if verdict.file != "model.fused.onnx"), verdicts


def test_command_reports_each_graph_as_json_and_as_text(
    library: Library, vit_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-tensorrt", str(vit_bundle)]) == 0
    out, err = capsys.readouterr()
    event = json.loads(out)
    assert (event["event"], event["fit"], event["prepared"]) == ("done", True, None)
    assert event["checked_by"] == library.title
    assert list(event["graphs"]) == ["model.onnx", "model.fused.onnx"]
    assert event["graphs"]["model.onnx"]["fit"]
    assert f"checked by {library.title}" in err
    assert "accepted after the rewrite of --out; as it is: Resize" in err


def test_rejected_bundle_gets_exit_code_1_and_no_folder(
    library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The golden bundle's graph transposes uint8, which TensorRT has only as an input and an output."""
    assert main(["check-tensorrt", str(GOLDEN), "--out", str(tmp_path / "trt")]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["fit"] is False
    assert "rejected: " in err
    assert "export it again" in err
    with pytest.raises(BundleError, match="Export the bundle again"):
        prepare(GOLDEN, read_manifest(GOLDEN), tmp_path / "trt", usual_profile(0), "fp32")
    assert list(tmp_path.iterdir()) == []


SHRINK = "s = Constant <value_ints = [1, 3, 8, 8]> () "
QUANTISE = "d = Constant <value_float = 0.1> () z = Constant <value = {}> () q = QuantizeLinear (image, d, z) "
QUANTISE += "y = DequantizeLinear (q, d, z)"


@pytest.mark.parametrize(
    "body",
    [
        SHRINK + 'y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (image, , , s)',
        "s = Shape (image) f = Reshape (image, s) y = Exp (f)",
        QUANTISE.format("int8 {0}"),
    ],
)
def test_parser_accepts(body: str, library: Library) -> None:
    assert parse_errors(graph(body), library) == ""


@pytest.mark.parametrize(
    ("body", "operator"),
    [
        ("y = Det (image)", "Det"),
        ("y = com.example.Blur (image)", "Blur"),
        (SHRINK + 'y = Resize <mode = "linear", antialias = 1> (image, , , s)', "Resize"),
        ("b = Cast <to = 2> (image) t = Transpose <perm = [0, 2, 3, 1]> (b) y = Cast <to = 1> (t)", "Cast"),
        (QUANTISE.format("uint8 {128}"), "QuantizeLinear"),
    ],
)
def test_parser_rejects_and_names_the_operator(body: str, operator: str, library: Library, tmp_path: Path) -> None:
    assert operator in parse_errors(graph(body), library)
    (tmp_path / "model.onnx").write_bytes(graph(body))
    with pytest.raises(BundleError, match=operator):
        build(tmp_path / "model.onnx", tmp_path / "model.plan", Profile((1, 8, 8), (1, 8, 8), (1, 8, 8)), library)
    assert not (tmp_path / "model.plan").exists()


def test_masks_of_many_classes_are_accepted_after_the_rewrite(library: Library, tmp_path: Path) -> None:
    write_graph(ManyClasses(), tmp_path / "model.onnx", multiple=1)
    model = onnx.load(tmp_path / "model.onnx")
    assert parse_errors(model.SerializeToString(), library)
    assert parse_errors(for_tensorrt(model).SerializeToString(), library) == ""


def test_engine_is_not_run_without_a_gpu(library: Library, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TensorRTUnavailableError, match="no GPU"):
        load_predictor(tmp_path / "model.plan", library)
