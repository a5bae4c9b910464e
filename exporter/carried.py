"""Which operators stay in integers between convolutions that are quantised.

A Relu behind a convolution is no more than a bound of what it may give, and a sum or an upsampled map between
convolutions would turn to float only to be rounded again.
"""

from collections.abc import Collection, Iterator

import onnx

ACTIVATIONS = ("Clip", "Relu")
"""Part of the operator in front of them."""

BETWEEN = ("Add", "Resize")
"""Carried only from quantised operators to quantised operators: what others read they read as it was."""

CARRIED = (*ACTIVATIONS, *BETWEEN)


def carried(graph: onnx.GraphProto, quantised: Collection[str]) -> list[str]:
    """The names of operators to quantise beside those of these names.

    Args:
        graph: each of its operators has a name.
        quantised: names of operators with weights.
    """
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    inside = {node.name for node in graph.node if node.name in quantised or node.op_type in CARRIED}

    def fits(node: onnx.NodeProto) -> bool:
        if not all(name in makers and makers[name].name in inside for name in _data(node)):
            return False
        result = node.output[0]
        read_by = {reader.name for reader in readers.get(result, ())}
        return node.op_type in ACTIVATIONS or (read_by <= inside and result not in outputs)

    candidates = [node for node in graph.node if node.op_type in CARRIED]
    # One that falls out may take its neighbours with it.
    while unfit := [node for node in candidates if not fits(node)]:
        inside -= {node.name for node in unfit}
        candidates = [node for node in candidates if node.name in inside]
    return [node.name for node in candidates]


def _data(node: onnx.NodeProto) -> Iterator[str]:
    """The inputs that are maps, and not bounds or sizes."""
    return iter(node.input if node.op_type == "Add" else node.input[:1])
