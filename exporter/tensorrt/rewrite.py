"""Rewrite a bundle's graph in operators and types that TensorRT has, with the same results.

- TensorRT's Resize lacks antialiasing, with which graphs resize images and the position embeddings of a ViT. It is
  replaced by matrix products with the filter's weights, which are about seven times slower on a CPU.
- TensorRT lacks uint16, the type of masks of more than 256 classes. They become int32.
"""

# N images, C channels, H W pixels before and h w after resizing, p pixels before and q after along one axis

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
    """Return a copy of the graph without antialiased Resize and without uint16."""
    rewritten: onnx.ModelProto = rewrite(_with_fp32_weights(model), pattern_rewrite_rules=RULES)
    masks = [value for value in rewritten.graph.output if value.type.tensor_type.elem_type == TensorProto.UINT16]
    for value in masks:
        value.type.tensor_type.elem_type = TensorProto.INT32
    for node in rewritten.graph.node:
        if node.op_type == "Cast" and node.output[0] in {value.name for value in masks}:
            node.attribute[0].i = TensorProto.INT32
    return rewritten


def _with_fp32_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert fp16 weights, since TensorRT computes in the types that it finds."""
    full = onnx.ModelProto()
    full.CopyFrom(model)
    graph = full.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]
    for cast in casts:
        values = onnx.numpy_helper.to_array(stored[cast.input[0]])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(cast.attribute[0].i)
        graph.initializer.append(onnx.numpy_helper.from_array(values.astype(dtype), cast.output[0]))
        graph.node.remove(cast)
    for name in {cast.input[0] for cast in casts} - {name for node in graph.node for name in node.input}:
        graph.initializer.remove(stored[name])
    return full


def _rule(mode: str, kernel: Callable[[Any, Any], Any], **attributes: float) -> pattern.RewriteRule:
    """Replace an antialiased Resize with PyTorch's attributes by matrix products."""

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
        down_hH, across_wW = (_weights(op, image, sizes, axis, kernel) for axis in (2, 3))
        return op.MatMul(down_hH, op.MatMul(image, op.Transpose(across_wW, perm=[1, 0])))

    return pattern.RewriteRule(resized, products)


def _weights(op: Any, image: ir.Value, sizes: ir.Value, axis: int, kernel: Callable[[Any, Any], Any]) -> Any:
    """Weight of each input pixel in each output pixel along one axis, float [q,p]; each row sums to 1.

    The kernel widens with the scale, as in torch's `interpolate(antialias=True)` and in Pillow.
    """
    before = op.Squeeze(op.Shape(image, start=axis, end=axis + 1), op.Constant(value_ints=[0]))
    after = op.Gather(sizes, op.Constant(value_int=axis))
    scale = op.Div(op.Cast(before, to=FLOAT), op.Cast(after, to=FLOAT))
    source_1p = op.Unsqueeze(_centres(op, before), op.Constant(value_ints=[0]))
    target_q1 = op.Unsqueeze(op.Mul(_centres(op, after), scale), op.Constant(value_ints=[1]))
    weight_qp = kernel(op, op.Div(op.Abs(op.Sub(source_1p, target_q1)), op.Max(scale, _number(op, 1))))
    return op.Div(weight_qp, op.ReduceSum(weight_qp, op.Constant(value_ints=[1]), keepdims=1))


def _centres(op: Any, count: Any) -> Any:
    """0.5, 1.5, ... for `count` pixels."""
    # In integers: TensorRT's Range takes floats only if they are known at build time.
    indices = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
    return op.Add(op.Cast(indices, to=FLOAT), _number(op, 0.5))


def _triangle(op: Any, distance: Any) -> Any:
    return op.Max(op.Sub(_number(op, 1), distance), _number(op, 0))


def _cubic(op: Any, distance: Any) -> Any:
    """Cubic convolution (Keys, 1981) with the coefficient that torch and Pillow use for antialiasing."""
    squared = op.Mul(distance, distance)
    below_1 = _polynomial(op, distance, squared, (1, 0, -(CUBIC + 3), CUBIC + 2))
    below_2 = _polynomial(op, distance, squared, (-4 * CUBIC, 8 * CUBIC, -5 * CUBIC, CUBIC))
    outer = op.Where(op.Less(distance, _number(op, 2)), below_2, _number(op, 0))
    return op.Where(op.Less(distance, _number(op, 1)), below_1, outer)


def _polynomial(op: Any, x: Any, squared: Any, coefficients: tuple[float, float, float, float]) -> Any:
    constant, first, second, third = (_number(op, coefficient) for coefficient in coefficients)
    return op.Add(op.Add(constant, op.Mul(first, x)), op.Mul(squared, op.Add(second, op.Mul(third, x))))


def _number(op: Any, value: float) -> Any:
    return op.Constant(value_float=float(value))


RULES = [_rule("linear", _triangle), _rule("cubic", _cubic, cubic_coeff_a=CUBIC)]
