"""The channels-last resize gives the same masks, and other resizes are not changed."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from exporter.channels_last import resize_channels_last
from exporter.graph import OPSET, save, write_graph
from exporter.probe import Bytes, scene
from exporter.runtime import OnnxPredictor
from trainer.models.upsampled_argmax import CLASSES_AT_ONCE, upsampled_argmax


class _Small(nn.Module):
    """One convolution as the network, then the usual resize and arg-max."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.logits = nn.Conv2d(3, classes, 4, stride=4)

    def forward(self, image_NHW3: Tensor) -> tuple[Tensor, Tensor]:
        logits_NKhw = self.logits(image_NHW3.float().permute(0, 3, 1, 2) / 64)
        class_NHW, confidence_NHW = upsampled_argmax(logits_NKhw, image_NHW3.shape[1:3], align_corners=False)
        return class_NHW.to(torch.uint8), (confidence_NHW * 255).round().to(torch.uint8)


@pytest.mark.parametrize("classes", [2, 2 * CLASSES_AT_ONCE + 1])
def test_masks_stay_equal(classes: int, tmp_path: Path) -> None:
    nchw, nhwc = tmp_path / "nchw.onnx", tmp_path / "nhwc.onnx"
    write_graph(_Small(classes), nchw, multiple=4)
    model = ir.load(nchw)
    assert resize_channels_last(model) == -(-classes // CLASSES_AT_ONCE)
    save(ir.to_proto(model), nhwc)
    expect, predict = OnnxPredictor(nchw), OnnxPredictor(nhwc)
    for image_NHW3 in (_batch(37, 53), _batch(64, 32), _batch(4, 9)):
        expected, found = expect(image_NHW3), predict(image_NHW3)
        assert np.mean(expected[0] == found[0]) > 0.9999
        assert np.abs(expected[1].astype(int) - found[1]).max() <= 1


def _batch(height: int, width: int) -> Bytes:
    return np.stack([scene(height, width, seed) for seed in range(2)])


@pytest.mark.parametrize(
    "reduction",
    [
        "y = ReduceMax <keepdims = 0> (u, one) z = Relu (u)",
        "y = ReduceMax <keepdims = 1> (u, one) z = Exp (y)",
        "two = Constant <value_ints = [2]> () y = ReduceMax <keepdims = 0> (u, two) z = Exp (y)",
        "y = ReduceMax <keepdims = 0> (u) z = Exp (y)",
        "e = Exp (u) y = ReduceSum <keepdims = 0> (e, one) z = Relu (e)",
    ],
    ids=["other reader", "keepdims", "over rows", "over all axes", "other reader of the exponential"],
)
def test_other_resizes_are_not_changed(reduction: str) -> None:
    text = f"""<ir_version: 9, opset_import: ["" : {OPSET}]> g (float[1,3,4,4] x) => (float y, float z)
        <int64[4] size = {{1, 3, 8, 8}}, int64[1] one = {{1}}>
        {{ u = Resize <mode = "linear"> (x, , , size) {reduction} }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    before = ir.to_proto(model)
    assert resize_channels_last(model) == 0
    assert ir.to_proto(model) == before
