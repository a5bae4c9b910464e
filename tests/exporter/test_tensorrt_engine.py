"""NVIDIA's own parser and builder on a bundle's graphs; they must agree with the check, which is for who has neither.

TensorRT for RTX builds engines without a GPU. `make tensorrt` fetches it, or:

    uv pip install --target .venv/tensorrt tensorrt-rtx==1.7.1.116
    PYTHONPATH=.venv/tensorrt python -m pytest tests/exporter/test_tensorrt_engine.py
"""

import json
from pathlib import Path

import onnx
import onnx.parser
import pytest

from exporter.__main__ import main
from exporter.bundle import BundleError
from exporter.tensorrt import engine
from exporter.tensorrt.check import check
from exporter.tensorrt.engine import Library, NoEngineError, build, library
from exporter.tensorrt.profile import Profile
from tests.exporter.conftest import make_checkpoint

SMALL = ["--max", "2x256x256", "--opt", "1x96x128"]
DINO = {
    "encoder": "vit_small_patch14_dinov2",
    "encoder_options": {"depth": 4, "embed_dim": 24, "num_heads": 2, "img_size": 70},
    "weights": "none",
    "features": 8,
    "projections": [8, 8, 8, 8],
}


@pytest.fixture
def rtx() -> Library:
    try:
        return library()
    except NoEngineError as error:
        pytest.skip(f"{error}; make tensorrt")


@pytest.fixture(scope="module")
def dino_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from exporter.export import export

    folder = tmp_path_factory.mktemp("dino")
    export(make_checkpoint(folder / "model.safetensors", DINO), folder / "bundle", with_checkpoint=False)
    return folder / "bundle"


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("kind", ["vit", "convnet", "dino"])
def test_it_builds_an_engine_of_what_the_check_calls_fit(
    kind: str, precision: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bundle: Path = request.getfixturevalue(f"{kind}_bundle")
    out = tmp_path / "trt"
    assert main(["check-tensorrt", str(bundle), "--out", str(out), "--precision", precision, *SMALL]) == 0
    seen = json.loads((out / "tensorrt.json").read_text())["engine"]
    assert seen["built_by"].startswith("tensorrt")
    assert seen["bytes"] == (out / "model.plan").stat().st_size > 10_000
    assert seen["missing"] == "not run: no GPU" if seen["agreement"] is None else seen["agreement"] > 0.98


@pytest.mark.parametrize(
    "body",
    [
        "y = Det (x)",
        's = Constant <value_ints = [1, 3, 8, 8]> () y = Resize <mode = "linear", antialias = 1> (x, , , s)',
        "b = Cast <to = 2> (x) t = Transpose <perm = [0, 2, 3, 1]> (b) y = Cast <to = 1> (t)",
    ],
)
def test_it_refuses_what_the_check_refuses(body: str, rtx: Library, tmp_path: Path) -> None:
    text = f'<ir_version: 10, opset_import: ["" : 20]> g (float[N,H,W,3] image) => (float[n,c,h,w] y) {{ {body} }}'
    model = onnx.parser.parse_model(text.replace("(x", "(image"))
    assert check(model)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(BundleError):
        build(tmp_path / "model.onnx", tmp_path / "model.plan", Profile((1, 8, 8), (1, 8, 8), (1, 8, 8)), rtx)
    assert not (tmp_path / "model.plan").exists()


def test_without_a_gpu_it_does_not_run(rtx: Library, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(NoEngineError, match="no GPU"):
        engine.predictor(tmp_path / "model.plan", rtx)
