"""A graph in half precision: weights and arithmetic in fp16, but where half hurts."""

from collections.abc import Collection

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from exporter.by_size import known_by_size

KEPT_FULL = (
    # Places in an image or a table of positions: half a pixel of 2048 is beyond fp16's eleven bits.
    "Resize",
    # Sums of many terms, and what divides by them.
    "LayerNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "Softmax",
    "ReduceMean",
    "ReduceSum",
    "Pow",
    "Sqrt",
)
"""Operators that compute in fp32; casts stand before and behind them."""

LARGE = 3e4
"""Half of what fp16 can hold: a tensor that comes so far on some images may overflow on others."""


def halved(model: onnx.ModelProto, large: Collection[str] = ()) -> onnx.ModelProto:
    """The same graph in fp16. Inputs and outputs keep their types, which are no floats.

    Args:
        model: in fp32; it is left as it is.
        large: tensors that come beyond LARGE; what makes or takes them computes in fp32.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [node.name for node in copy.graph.node if {*node.input, *node.output} & {*large}]
    half = convert_float_to_float16(
        copy,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *KEPT_FULL],
        node_block_list=[*kept, *_around_the_network(copy)],
    )
    _spare_detours(half)
    graph = ir.from_proto(half)
    # The converter's casts stand at the end of the list.
    graph.graph.sort()
    RemoveUnusedNodesPass()(graph)
    ordered: onnx.ModelProto = ir.to_proto(graph)
    return ordered


def _spare_detours(half: onnx.ModelProto) -> None:
    """Between two nodes that compute in fp32 the converter goes through fp16, where large values would be lost."""
    nodes = half.graph.node
    narrowed = {node.output[0]: node.input[0] for node in nodes if node.name.endswith("_cast_to_fp16_node")}
    full = {node.output[0]: narrowed[node.input[0]] for node in nodes if _widens(node) and node.input[0] in narrowed}
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = full.get(name, name)


def _widens(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and bool(node.attribute[0].i == onnx.TensorProto.FLOAT)


def _around_the_network(model: onnx.ModelProto) -> list[str]:
    """The nodes that stay in full: before the first convolution, after the last one, and what sizes alone decide.

    After, the arg-max must see the logits that the confidence is of; the others count places in an image.
    """
    nodes = list(model.graph.node)
    places = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    first, last = (places[0], places[-1]) if places else (0, len(nodes))
    known = known_by_size(model.graph)
    return [
        node.name
        for place, node in enumerate(nodes)
        if place < first or place > last or all(name in known for name in node.output)
    ]
