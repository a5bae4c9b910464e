"""Fuse attention into onnxruntime's MultiHeadAttention operator.

Exported attention is MatMul, Softmax, MatMul, and its scores take heads x tokens x tokens floats: 11 GB for an image of
2048x2048 pixels at patch size 14. MultiHeadAttention computes them in tiles, as FlashAttention (arXiv 2205.14135) does.
It is not a standard ONNX operator, so the fused graph is a separate file.
"""

# N images, T tokens, G heads, D channels of a head

from typing import Any

import onnx
import onnx_ir as ir
from onnxscript.rewriter import pattern, rewrite

DOMAIN = "com.microsoft"
FUSED = "MultiHeadAttention"


def fuse_attention(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return a copy of the graph with fused attention, and the number of fused blocks.

    Fuses only scaled_dot_product_attention without a mask, as torch's ONNX exporter writes it.
    """
    # The number of heads is read from the inferred shapes.
    shaped = onnx.shape_inference.infer_shapes(model, data_prop=True)
    fused: onnx.ModelProto = rewrite(shaped, pattern_rewrite_rules=[RULE])
    count = sum(node.op_type == FUSED for node in fused.graph.node)
    if count and DOMAIN not in {entry.domain for entry in fused.opset_import}:
        fused.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return fused, count


def _exported_attention(op: Any, query: Any, key: Any, value: Any, root: Any, flat: Any, full: Any) -> Any:  # noqa: PLR0917 (names that the pattern binds)
    """Pattern: query, key, value float [N,G,T,D]; query and key are each multiplied by the square root of the scale."""
    # torch's ONNX exporter transposes the key as [N*G,T,D].
    transposed = op.Transpose(op.Reshape(key, flat, _allow_other_attributes=True), perm=[0, 2, 1])
    transposed = op.Reshape(transposed, full, _allow_other_attributes=True)
    scores = op.MatMul(op.Mul(query, root), op.Mul(transposed, root))
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def _fused_attention(op: Any, query: ir.Value, key: ir.Value, value: ir.Value, root: Any, **_: Any) -> Any:
    heads, scale = _heads(query), float(root.const_value.numpy().item()) ** 2
    merged = op.Constant(value_ints=[0, 0, -1])
    inputs_NTC = [op.Reshape(op.Transpose(each, perm=[0, 2, 1, 3]), merged) for each in (query, key, value)]
    output_NTC = op.MultiHeadAttention(*inputs_NTC, num_heads=heads, scale=scale, _domain=DOMAIN)
    return op.Transpose(op.Reshape(output_NTC, op.Constant(value_ints=[0, 0, heads, -1])), perm=[0, 2, 1, 3])


def _can_fuse(_context: Any, query: ir.Value, key: ir.Value, value: ir.Value, root: ir.Value, **_: Any) -> bool:
    heads = {_heads(each) for each in (query, key, value)}
    # Multi-query attention, as in MobileNetV4, has one head of keys and values; the fused operator requires equal ones.
    all_equal = len(heads) == 1 and isinstance(heads.pop(), int)
    return all_equal and root.const_value is not None and root.const_value.size == 1


def _heads(query: ir.Value) -> Any:
    return query.shape[1] if query.shape is not None and len(query.shape) == 4 else None


RULE = pattern.RewriteRule(_exported_attention, _fused_attention, _can_fuse)
