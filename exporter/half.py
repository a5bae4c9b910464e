"""A graph in half precision: weights and arithmetic in fp16, but where half hurts."""

import onnx
import onnx_ir as ir
from onnxruntime.transformers.float16 import convert_float_to_float16

KEPT_FULL = (
    # Places in an image or a table of positions: half a pixel of 2048 is beyond fp16's eleven bits.
    "Resize",
    "Range",
    # Sums of many terms, and what divides by them.
    "LayerNormalization",
    "Softmax",
    "ReduceMean",
    "ReduceSum",
    "Exp",
    "Reciprocal",
    # The arg-max must see the logits as the confidence does.
    "ReduceMax",
    "ArgMax",
)
"""Operators that compute in fp32; casts stand before and behind them."""


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in fp16. Inputs and outputs keep their types, which are no floats.

    Args:
        model: in fp32; it is left as it is.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    half = ir.from_proto(convert_float_to_float16(copy, keep_io_types=True, op_block_list=list(KEPT_FULL)))
    # Its casts stand at the end of the list.
    half.graph.sort()
    ordered: onnx.ModelProto = ir.to_proto(half)
    return ordered
