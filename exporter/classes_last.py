"""Class maps with the classes side by side: what onnxruntime's CPU resizes and folds fastest.

Traced, the last steps resize K class maps and look across them for the largest and for a sum, from one map to the next.
With a pixel's K values side by side each of those steps is a run through memory. TensorRT and others resize maps only,
so this is for graphs that are for CPUs.
"""

# N images, K classes, h w the head's size, H W pixels

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

ORDER, AXIS = "classes_last.order", "classes_last.axis"
FOLDS = ("ArgMax", "ReduceMax", "ReduceSum")

Readers = Mapping[str, Sequence[onnx.NodeProto]]


def put_classes_last(model: onnx.ModelProto) -> int:
    """Turn each resizing [N,K,h,w] to [N,K,H,W] whose result is only folded over K to one from [N,h,w,K] to [N,H,W,K].

    Returns:
        how many there were; `model` is changed.
    """
    graph = model.graph
    numbers = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = _readers(graph)
    turned = 0
    for resize in [node for node in graph.node if node.op_type == "Resize" and len(node.input) == 4]:
        folds = _folds(resize.output[0], readers, numbers)
        if folds:
            _turn(graph, resize, folds)
            turned += 1
    if turned:
        for name, values in ((ORDER, [0, 2, 3, 1]), (AXIS, [3])):
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, dtype=np.int64), name))
    return turned


def _readers(graph: onnx.GraphProto) -> Readers:
    found = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def _folds(name: str, readers: Readers, numbers: Mapping[str, np.ndarray]) -> list[onnx.NodeProto]:
    """What folds this tensor, or its exponential, over the classes; none where anything else reads it."""
    found = []
    for node in readers.get(name, ()):
        beyond = _folds(node.output[0], readers, numbers) if node.op_type == "Exp" else []
        if not beyond and not _is_fold(node, numbers):
            return []
        found += beyond or [node]
    return found


def _is_fold(node: onnx.NodeProto, numbers: Mapping[str, np.ndarray]) -> bool:
    """Whether it takes [N,K,H,W] to [N,H,W]."""
    if node.op_type not in FOLDS:
        return False
    said = {each.name: each.i for each in node.attribute}
    axes = [said.get("axis", 0)] if node.op_type == "ArgMax" else _axes(node, numbers)
    return said.get("keepdims", 1) == 0 and axes == [1]


def _axes(reduction: onnx.NodeProto, numbers: Mapping[str, np.ndarray]) -> list[int]:
    """What it says it folds; empty where it says nothing, which is all of them."""
    found = [numbers[name].tolist() for name in reduction.input[1:] if name in numbers]
    return found[0] if found else []


def _turn(graph: onnx.GraphProto, resize: onnx.NodeProto, folds: Sequence[onnx.NodeProto]) -> None:
    logits, sizes = resize.input[0], resize.input[3]
    last, sizes_last = f"{resize.output[0]}.classes_last", f"{resize.output[0]}.sizes_last"
    place = list(graph.node).index(resize)
    graph.node.insert(place, onnx.helper.make_node("Transpose", [logits], [last], perm=[0, 2, 3, 1]))
    graph.node.insert(place, onnx.helper.make_node("Gather", [sizes, ORDER], [sizes_last]))
    resize.input[0], resize.input[3] = last, sizes_last
    for node in folds:
        if node.op_type == "ArgMax":
            next(each for each in node.attribute if each.name == "axis").i = 3
        else:
            node.input[1] = AXIS
