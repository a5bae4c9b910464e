"""The rewrite for TensorRT keeps a graph's results."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from exporter.graph import save, write_graph
from exporter.probe import scene
from exporter.runtime import CPU, OnnxPredictor
from exporter.tensorrt.prepare import MASK_TYPES
from exporter.tensorrt.rewrite import for_tensorrt

SIZES = [(37, 100, 20, 31), (20, 31, 37, 100), (64, 64, 64, 64), (1, 1, 14, 14), (100, 3, 7, 14), (9, 500, 9, 2)]
"""Height and width before and after: smaller, larger, equal, from one pixel, mixed, far smaller."""


def resizing(mode: str, *, coefficient: float, exclude_outside: int = 1) -> onnx.ModelProto:
    """One antialiased Resize."""
    return onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N,C,H,W] x, int64[4] s) => (float[N,C,h,w] y) { '
        f'y = Resize <antialias = 1, mode = "{mode}", coordinate_transformation_mode = "half_pixel", '
        f"cubic_coeff_a = {coefficient}, exclude_outside = {exclude_outside}> (x, , , s) }}"
    )


def run(model: onnx.ModelProto, image: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[CPU])
    found: np.ndarray = session.run(None, {"x": image, "s": np.array(sizes)})[0]
    return found


@pytest.mark.parametrize(("mode", "coefficient"), [("linear", -0.75), ("cubic", -0.5)])
def test_antialiased_resize_becomes_matrix_products_with_equal_results(mode: str, coefficient: float) -> None:
    plain = resizing(mode, coefficient=coefficient)
    products = for_tensorrt(plain)
    assert "Resize" not in {node.op_type for node in products.graph.node}
    torch_mode = {"linear": "bilinear", "cubic": "bicubic"}[mode]
    for height, width, new_height, new_width in SIZES:
        image = np.random.default_rng(height).random((2, 3, height, width), dtype=np.float32)
        found = run(products, image, (2, 3, new_height, new_width))
        np.testing.assert_allclose(found, run(plain, image, (2, 3, new_height, new_width)), atol=1e-5)
        torchs = F.interpolate(
            torch.from_numpy(image), (new_height, new_width), mode=torch_mode, align_corners=False, antialias=True
        )
        np.testing.assert_allclose(found, torchs.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "coefficient", "exclude_outside"), [("linear", -0.75, 0), ("cubic", -0.5, 0), ("cubic", -0.75, 1)]
)
def test_resize_with_other_attributes_is_kept(mode: str, coefficient: float, exclude_outside: int) -> None:
    """Its weights differ from PyTorch's, so PyTorch's products would be wrong."""
    kept = for_tensorrt(resizing(mode, coefficient=coefficient, exclude_outside=exclude_outside))
    assert [node.op_type for node in kept.graph.node] == ["Resize"]


class ManyClasses(nn.Module):
    """Predicts class 2 * R + G, up to 765, through floats, as networks do."""

    def forward(self, image_NHW3: Tensor) -> tuple[Tensor, Tensor]:
        image_NHW3 = image_NHW3.to(torch.float32)
        return (2 * image_NHW3[..., 0] + image_NHW3[..., 1]).to(torch.int32), image_NHW3[..., 2].to(torch.uint8)


def test_masks_of_many_classes_become_int32(tmp_path: Path) -> None:
    write_graph(ManyClasses(), tmp_path / "model.onnx", multiple=1)
    model = onnx.load(tmp_path / "model.onnx")
    save(for_tensorrt(model), tmp_path / "rewritten.onnx")
    image_NHW3 = scene(30, 40, seed=3)[None]
    mask, confidence, _ = OnnxPredictor(tmp_path / "rewritten.onnx", mask_types=MASK_TYPES)(image_NHW3)
    expected, expected_confidence, _ = OnnxPredictor(tmp_path / "model.onnx")(image_NHW3)
    assert mask.dtype == np.dtype(np.int32)
    assert expected.dtype == np.dtype(np.uint16)
    assert expected.max() > 255
    assert np.array_equal(mask, expected)
    assert np.array_equal(confidence, expected_confidence)
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.UINT16, (
        "the bundle's graph is unchanged"
    )
