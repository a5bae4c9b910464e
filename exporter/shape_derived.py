"""Find the tensors whose values depend only on input shapes and constants, for example positions and target sizes."""

import onnx


def shape_derived_tensors(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that are computed from the shapes of the inputs and from constants, constants included."""
    known = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:  # ONNX sorts nodes topologically
        if node.op_type in {"Shape", "Size"} or all(name in known for name in node.input):
            known.update(node.output)
    return known
