"""Convert a graph to fp16 weights and arithmetic, except for operators that need fp32."""

from collections.abc import Collection

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

# Resize computes coordinates: from 1024 on, fp16 with its 11-bit significand cannot represent half a pixel.
# The others are parts of normalisation and softmax, which overflow or lose precision in fp16.
NORMALISATIONS = (
    "LayerNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "Softmax",
    "ReduceMean",
    "ReduceSum",
)
FP32_OPERATORS = ("Resize", *NORMALISATIONS, "Pow", "Sqrt", "ReduceL2")
"""Operators that compute in fp32, between casts."""

FP16_SAFE_MAX = 3e4
"""A little less than half of the largest fp16 value: a tensor above it on some images may overflow on others."""


def convert_to_fp16(model: onnx.ModelProto, large: Collection[str] = ()) -> onnx.ModelProto:
    """Return a copy of an fp32 graph in fp16. Inputs and outputs and integer tensors keep their types.

    Nodes that write or read the tensors named in `large` compute in fp32.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    overflowing = [node.name for node in copy.graph.node if {*node.input, *node.output} & {*large}]
    converted = convert_float_to_float16(
        copy,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *FP32_OPERATORS],
        node_block_list=[*overflowing, *_nodes_outside_network(copy)],
    )
    _remove_fp16_round_trips(converted)
    graph = ir.from_proto(converted)
    # The converter appends its casts at the end.
    graph.graph.sort()
    RemoveUnusedNodesPass()(graph)
    ordered: onnx.ModelProto = ir.to_proto(graph)
    return ordered


def _remove_fp16_round_trips(model: onnx.ModelProto) -> None:
    """Connect fp32 nodes directly: the converter casts to fp16 and back between them, which loses large values."""
    nodes = model.graph.node
    to_fp16 = {node.output[0]: node.input[0] for node in nodes if node.name.endswith("_cast_to_fp16_node")}
    casts = [node for node in nodes if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT]
    original = {node.output[0]: to_fp16[node.input[0]] for node in casts if node.input[0] in to_fp16}
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = original.get(name, name)


def _nodes_outside_network(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes before the first and after the last convolution, and of those that only handle shapes.

    Normalisation needs the range of fp32, arg-max and confidence the same logits; shapes become coordinates.
    """
    nodes = list(model.graph.node)
    convolutions = [index for index, node in enumerate(nodes) if node.op_type == "Conv"]
    network = range(convolutions[0], convolutions[-1] + 1) if convolutions else range(len(nodes))
    known = shape_derived_tensors(model.graph)
    return [node.name for index, node in enumerate(nodes) if index not in network or known.issuperset(node.output)]


def shape_derived_tensors(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that depend only on input shapes and constants; constants included."""
    known = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:  # ONNX sorts nodes topologically
        if node.op_type in {"Shape", "Size"} or known.issuperset(node.input):
            known.update(node.output)
    return known
