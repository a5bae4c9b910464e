"""Select the operators between quantised convolutions that also stay in int8.

A Relu behind a convolution only limits the convolution's output range. A sum or an upsampling between convolutions
would otherwise convert int8 to float and back.
"""

from collections.abc import Collection

import onnx_ir as ir

ACTIVATIONS = ("Clip", "Relu")
"""Quantised together with the operator that precedes them."""

BETWEEN = ("Add", "Resize")
"""Quantised only if all their inputs and all their readers are quantised; other readers need the float value."""

PASSTHROUGH = (*ACTIVATIONS, *BETWEEN)


def int8_passthrough(graph: ir.Graph, quantized: Collection[str]) -> list[str]:
    """Names of the operators that can stay in int8 in addition to `quantized`.

    Args:
        graph: a graph whose operators all have names.
        quantized: names of the operators with weights that are quantised.
    """
    candidates = [node for node in graph if node.op_type in PASSTHROUGH]
    in_int8 = {*candidates, *(node for node in graph if node.name in quantized)}

    def fits(node: ir.Node) -> bool:
        features = node.inputs if node.op_type == "Add" else node.inputs[:1]  # the others are bounds and sizes
        if not all(value is not None and value.producer() in in_int8 for value in features):
            return False
        result = node.outputs[0]
        return node.op_type in ACTIVATIONS or (in_int8.issuperset(result.consumers()) and not result.is_graph_output())

    # Repeat until stable: rejecting one operator can invalidate those that it is connected to.
    while unfit := [node for node in candidates if not fits(node)]:
        in_int8.difference_update(unfit)
        candidates = [node for node in candidates if node in in_int8]
    return [str(node.name) for node in candidates]
