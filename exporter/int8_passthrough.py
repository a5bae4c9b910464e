"""Select the operators between quantised convolutions that also stay in int8.

A Relu behind a convolution only limits the convolution's output range. A sum or an upsampling between convolutions
would otherwise convert int8 to float and back.
"""

from collections.abc import Collection, Iterator

import onnx

ACTIVATIONS = ("Clip", "Relu")
"""Quantised together with the operator that precedes them."""

BETWEEN = ("Add", "Resize")
"""Quantised only if all their inputs and all their readers are quantised; other readers need the float value."""

PASSTHROUGH = (*ACTIVATIONS, *BETWEEN)


def int8_passthrough(graph: onnx.GraphProto, quantized: Collection[str]) -> list[str]:
    """Names of the operators that can stay in int8 in addition to `quantized`.

    Args:
        graph: a graph whose operators all have names.
        quantized: names of the operators with weights that are quantised.
    """
    producers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    in_int8 = {node.name for node in graph.node if node.name in quantized or node.op_type in PASSTHROUGH}

    def fits(node: onnx.NodeProto) -> bool:
        if not all(name in producers and producers[name].name in in_int8 for name in _data_inputs(node)):
            return False
        result = node.output[0]
        read_by = {reader.name for reader in readers.get(result, ())}
        return node.op_type in ACTIVATIONS or (read_by <= in_int8 and result not in outputs)

    candidates = [node for node in graph.node if node.op_type in PASSTHROUGH]
    # Repeat until stable: rejecting one operator can invalidate those that it is connected to.
    while unfit := [node for node in candidates if not fits(node)]:
        in_int8 -= {node.name for node in unfit}
        candidates = [node for node in candidates if node.name in in_int8]
    return [node.name for node in candidates]


def _data_inputs(node: onnx.NodeProto) -> Iterator[str]:
    """The inputs that are feature maps, without bounds and sizes."""
    return iter(node.input if node.op_type == "Add" else node.input[:1])
