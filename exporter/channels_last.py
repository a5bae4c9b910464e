"""Run the final resize of class maps in NHWC (channels-last): faster on onnxruntime's CPU provider.

The exported graph resizes K class maps in NCHW and then reduces over K (arg-max, maximum, sum), which strides through
memory. In NHWC the K values of a pixel are adjacent. TensorRT and other runtimes resize only NCHW, so the exporter
applies this pass only to graphs for CPUs.
"""

# N images, K classes, h w the size of the head's output, H W pixels

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

ORDER, AXIS = "channels_last.order", "channels_last.axis"
REDUCTIONS = ("ArgMax", "ReduceMax", "ReduceSum")

Readers = Mapping[str, Sequence[onnx.NodeProto]]
Constants = Mapping[str, np.ndarray]


def resize_channels_last(model: onnx.ModelProto) -> int:
    """Change each Resize from [N,K,h,w] to [N,K,H,W] whose result is only reduced over K to one in NHWC, in place.

    Returns:
        The number of changed Resize operators.
    """
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = _readers(graph)
    changed = 0
    for resize in [node for node in graph.node if node.op_type == "Resize" and len(node.input) == 4]:
        reductions = _class_reductions(resize.output[0], readers, constants)
        if reductions:
            _to_channels_last(graph, resize, reductions)
            changed += 1
    if changed:
        for name, values in ((ORDER, [0, 2, 3, 1]), (AXIS, [3])):
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, dtype=np.int64), name))
    return changed


def _readers(graph: onnx.GraphProto) -> Readers:
    found = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def _class_reductions(name: str, readers: Readers, constants: Constants) -> list[onnx.NodeProto]:
    """The nodes that reduce this tensor, or its exponential, over the classes; empty if anything else reads it."""
    found = []
    for node in readers.get(name, ()):
        after_exp = _class_reductions(node.output[0], readers, constants) if node.op_type == "Exp" else []
        if not after_exp and not _is_class_reduction(node, constants):
            return []
        found += after_exp or [node]
    return found


def _is_class_reduction(node: onnx.NodeProto, constants: Constants) -> bool:
    """Whether the node reduces [N,K,H,W] to [N,H,W]."""
    if node.op_type not in REDUCTIONS:
        return False
    attributes = {each.name: each.i for each in node.attribute}
    axes = [attributes.get("axis", 0)] if node.op_type == "ArgMax" else _axes(node, constants)
    return attributes.get("keepdims", 1) == 0 and axes == [1]


def _axes(reduction: onnx.NodeProto, constants: Constants) -> list[int]:
    """The reduced axes; empty if the node names none, which means all of them."""
    found = [constants[name].tolist() for name in reduction.input[1:] if name in constants]
    return found[0] if found else []


def _to_channels_last(graph: onnx.GraphProto, resize: onnx.NodeProto, reductions: Sequence[onnx.NodeProto]) -> None:
    logits, sizes = resize.input[0], resize.input[3]
    logits_NHWC, sizes_NHWC = f"{resize.output[0]}.channels_last", f"{resize.output[0]}.sizes_channels_last"
    place = list(graph.node).index(resize)
    graph.node.insert(place, onnx.helper.make_node("Transpose", [logits], [logits_NHWC], perm=[0, 2, 3, 1]))
    graph.node.insert(place, onnx.helper.make_node("Gather", [sizes, ORDER], [sizes_NHWC]))
    resize.input[0], resize.input[3] = logits_NHWC, sizes_NHWC
    for node in reductions:
        if node.op_type == "ArgMax":
            next(each for each in node.attribute if each.name == "axis").i = 3
        else:
            node.input[1] = AXIS
