"""Fused attention for onnxruntime: one operator that never holds the square of scores.

Traced attention is a product, a softmax and a product, and its scores take heads x tokens x tokens floats: 11 GB for an
image of 2048x2048 pixels at patch 14. onnxruntime's MultiHeadAttention goes through them in tiles, as FlashAttention
(arXiv 2205.14135) does. It is no standard operator, so this is a graph beside the one that runs everywhere.
"""

# N images, T tokens, G heads, D width of a head

from typing import Any

import onnx
import onnx_ir as ir
from onnxscript.rewriter import pattern, rewrite

DOMAIN = "com.microsoft"
FUSED = "MultiHeadAttention"


def fuse_attention(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The same graph with fused attention, and how many times there was one to fuse.

    Args:
        model: as torch's exporter writes scaled_dot_product_attention without a mask; it is left as it is. Attention in
            another form, as with relative positions, stays.
    """
    # The number of heads is in the shapes.
    shaped = onnx.shape_inference.infer_shapes(model, data_prop=True)
    fused: onnx.ModelProto = rewrite(shaped, pattern_rewrite_rules=[RULE])
    count = sum(node.op_type == FUSED for node in fused.graph.node)
    if count and DOMAIN not in {entry.domain for entry in fused.opset_import}:
        fused.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return fused, count


def _traced(op: Any, query: Any, key: Any, value: Any, factor: Any, flat: Any, wide: Any) -> Any:  # noqa: PLR0917 (names that the pattern binds)
    """query, key, value float [N,G,T,D]; the factor, a root of the usual one, on either side."""
    # Over heads that are images, as its tracer turns no more than two sides.
    turned = op.Transpose(op.Reshape(key, flat, _allow_other_attributes=True), perm=[0, 2, 1])
    turned = op.Reshape(turned, wide, _allow_other_attributes=True)
    scores = op.MatMul(op.Mul(query, factor), op.Mul(turned, factor))
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def _fused(op: Any, query: ir.Value, key: ir.Value, value: ir.Value, factor: ir.Value, **_: Any) -> Any:
    heads, half_scale = _heads(query), _number(factor)
    together = op.Constant(value_ints=[0, 0, -1])
    rows = [op.Reshape(op.Transpose(each, perm=[0, 2, 1, 3]), together) for each in (query, key, value)]
    mixed = op.MultiHeadAttention(*rows, num_heads=heads, scale=half_scale**2, _domain=DOMAIN)
    return op.Transpose(op.Reshape(mixed, op.Constant(value_ints=[0, 0, heads, -1])), perm=[0, 2, 1, 3])


def _known(_context: Any, query: ir.Value, factor: ir.Value, **_: Any) -> bool:
    return isinstance(_heads(query), int) and factor.const_value is not None and factor.const_value.size == 1


def _heads(query: ir.Value) -> Any:
    return query.shape[1] if query.shape is not None and len(query.shape) == 4 else None


def _number(factor: ir.Value) -> float:
    assert factor.const_value is not None  # noqa: S101 (_known has looked)
    return float(factor.const_value.numpy().item())


RULE = pattern.RewriteRule(_traced, _fused, _known)
