"""Which tensors of a graph follow from the image's sizes and from constants: places, shapes, resampled tables."""

import onnx


def known_by_size(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that are known once the sizes of the inputs are; constants among them."""
    known = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:  # they come in an order in which inputs are made before they are used
        if node.op_type in {"Shape", "Size"} or all(name in known for name in node.input):
            known.update(node.output)
    return known
