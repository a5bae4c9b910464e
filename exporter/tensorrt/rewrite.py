"""What makes a bundle's graph fit for TensorRT: the same arithmetic in operators that it has.

Two things stand in the way at most. A graph that resizes images, or the table of positions of a ViT, does so with
antialiasing, which TensorRT's Resize lacks: products with the filter's weights take its place. (On a CPU that is some
seven times slower, so it is not how the bundle's graph does it.) And TensorRT has no uint16, in which masks of more
than 256 classes are: they become int32.
"""

# N images, C channels, H W pixels before and h w after resizing, p pixels before and q after on one side

from collections.abc import Callable
from typing import Any

import onnx
import onnx.numpy_helper
import onnx_ir as ir
from onnx import TensorProto
from onnxscript.rewriter import pattern, rewrite

FLOAT = int(TensorProto.FLOAT)
CUBIC = -0.5


def for_tensorrt(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph without antialiased Resize and without uint16; `model` is left as it is."""
    fit: onnx.ModelProto = rewrite(_with_weights_in_full(model), pattern_rewrite_rules=RULES)
    masks = [value for value in fit.graph.output if value.type.tensor_type.elem_type == TensorProto.UINT16]
    for value in masks:
        value.type.tensor_type.elem_type = TensorProto.INT32
    for node in fit.graph.node:
        if node.op_type == "Cast" and node.output[0] in {value.name for value in masks}:
            node.attribute[0].i = TensorProto.INT32
    return fit


def _with_weights_in_full(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights that are stored as halves, without the casts behind them: TensorRT keeps to the types that it finds."""
    full = onnx.ModelProto()
    full.CopyFrom(model)
    graph = full.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]
    for cast in casts:
        values = onnx.numpy_helper.to_array(stored[cast.input[0]])
        kind = onnx.helper.tensor_dtype_to_np_dtype(cast.attribute[0].i)
        graph.initializer.append(onnx.numpy_helper.from_array(values.astype(kind), cast.output[0]))
        graph.node.remove(cast)
    for name in {cast.input[0] for cast in casts} - {name for node in graph.node for name in node.input}:
        graph.initializer.remove(stored[name])
    return full


def _rule(mode: str, filtered: Callable[[Any, Any], Any], **attributes: float) -> pattern.RewriteRule:
    """Products for an antialiased Resize of PyTorch's kind, of which only the sides H and W change."""

    def resized(op: Any, image: Any, sizes: Any) -> Any:
        """Images float [N,C,H,W], sizes int64 [4]."""
        return op.Resize(
            image,
            None,
            None,
            sizes,
            antialias=1,
            mode=mode,
            coordinate_transformation_mode="half_pixel",
            exclude_outside=1,
            **attributes,
            _allow_other_attributes=True,
        )

    def products(op: Any, image: ir.Value, sizes: ir.Value, **_: Any) -> Any:
        """Rows, then columns: [h,H] @ ([N,C,H,W] @ [W,w])."""
        down_hH, across_wW = (_weights(op, image, sizes, side, filtered) for side in (2, 3))
        return op.MatMul(down_hH, op.MatMul(image, op.Transpose(across_wW, perm=[1, 0])))

    return pattern.RewriteRule(resized, products)


def _weights(op: Any, image: ir.Value, sizes: ir.Value, side: int, filtered: Callable[[Any, Any], Any]) -> Any:
    """How much of each pixel before a pixel after takes, float [q,p]: a filter as wide as the scale, of sum 1.

    As torch's interpolate with antialias, and Pillow.
    """
    before = op.Squeeze(op.Shape(image, start=side, end=side + 1), op.Constant(value_ints=[0]))
    after = op.Gather(sizes, op.Constant(value_int=side))
    scale = op.Div(op.Cast(before, to=FLOAT), op.Cast(after, to=FLOAT))
    source_1p = op.Unsqueeze(_centres(op, before), op.Constant(value_ints=[0]))
    target_q1 = op.Unsqueeze(op.Mul(_centres(op, after), scale), op.Constant(value_ints=[1]))
    weight_qp = filtered(op, op.Div(op.Abs(op.Sub(source_1p, target_q1)), op.Max(scale, _number(op, 1))))
    return op.Div(weight_qp, op.ReduceSum(weight_qp, op.Constant(value_ints=[1]), keepdims=1))


def _centres(op: Any, count: Any) -> Any:
    """The centres of `count` pixels in a row: 0.5, 1.5, ..."""
    # Counted in whole numbers: TensorRT counts in floats only as far as it knows when it builds.
    places = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
    return op.Add(op.Cast(places, to=FLOAT), _number(op, 0.5))


def _triangle(op: Any, distance: Any) -> Any:
    return op.Max(op.Sub(_number(op, 1), distance), _number(op, 0))


def _cubic(op: Any, distance: Any) -> Any:
    """Cubic convolution (Keys, 1981) with the coefficient that torch and Pillow take with antialiasing."""
    squared = op.Mul(distance, distance)
    near = _polynomial(op, distance, squared, (1, 0, -(CUBIC + 3), CUBIC + 2))
    far = _polynomial(op, distance, squared, (-4 * CUBIC, 8 * CUBIC, -5 * CUBIC, CUBIC))
    beyond = op.Where(op.Less(distance, _number(op, 2)), far, _number(op, 0))
    return op.Where(op.Less(distance, _number(op, 1)), near, beyond)


def _polynomial(op: Any, x: Any, squared: Any, factors: tuple[float, float, float, float]) -> Any:
    constant, first, second, third = (_number(op, factor) for factor in factors)
    return op.Add(op.Add(constant, op.Mul(first, x)), op.Mul(squared, op.Add(second, op.Mul(third, x))))


def _number(op: Any, value: float) -> Any:
    return op.Constant(value_float=float(value))


RULES = [_rule("linear", _triangle), _rule("cubic", _cubic, cubic_coeff_a=CUBIC)]
