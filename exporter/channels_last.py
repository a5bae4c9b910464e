"""Run the final resize of class maps in NHWC (channels-last): faster on onnxruntime's CPU provider.

The exported graph resizes K class maps in NCHW and then reduces over K (arg-max, maximum, sum), which strides through
memory. In NHWC the K values of a pixel are adjacent. Only for CPUs: TensorRT and other runtimes resize only NCHW.
"""

# N images, K classes, h w the size of the head's output, H W pixels

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.tape import Tape

REDUCTIONS = ("ArgMax", "ReduceMax", "ReduceSum")


def resize_channels_last(model: ir.Model) -> int:
    """Change each Resize [N,K,h,w] to [N,K,H,W] whose result is only reduced over K, in place; return their number."""
    changed = 0
    for node in list(model.graph):
        if node.op_type == "Resize" and len(node.inputs) == 4 and (found := _class_reductions(node.outputs[0])):
            _to_channels_last(model.graph, node, found)
            changed += 1
    return changed


def _class_reductions(value: ir.Value) -> list[ir.Node]:
    """The nodes that reduce this tensor, or its exponential, over the classes; empty if anything else reads it."""
    found = []
    for node in value.consumers():
        after_exp = _class_reductions(node.outputs[0]) if node.op_type == "Exp" else []
        if not after_exp and not _is_class_reduction(node):
            return []
        found += after_exp or [node]
    return found


def _is_class_reduction(node: ir.Node) -> bool:
    """Whether the node reduces [N,K,H,W] to [N,H,W]."""
    if node.op_type not in REDUCTIONS or node.attributes.get_int("keepdims", 1) != 0:
        return False
    if node.op_type == "ArgMax":
        return node.attributes.get_int("axis", 0) == 1
    axes = [ir.convenience.get_const_tensor(value) for value in node.inputs[1:] if value]
    return [tensor.numpy().tolist() for tensor in axes if tensor] == [[1]]


def _to_channels_last(graph: ir.Graph, resize: ir.Node, reductions: Sequence[ir.Node]) -> None:
    tape = Tape()
    order, axis = (tape.op("Constant", [], {"value_ints": values}) for values in ([0, 2, 3, 1], [3]))
    resize.replace_input_with(0, tape.op("Transpose", [resize.inputs[0]], {"perm": [0, 2, 3, 1]}))
    resize.replace_input_with(3, tape.op("Gather", [resize.inputs[3], order]))
    graph.insert_before(resize, tape.nodes)
    for node in reductions:
        if node.op_type == "ArgMax":
            node.attributes.add(ir.AttrInt64("axis", 3))
        else:
            node.replace_input_with(1, axis)
