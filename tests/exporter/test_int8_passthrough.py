"""Operators that stay in int8 between convolutions, on small graphs."""

from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from exporter.quantize import _int8_passthrough, _quantizable

TENSORS = {
    "w": np.ones((8, 8, 1, 1), np.float32),
    "thin": np.ones((8, 3, 1, 1), np.float32),
    "depthwise": np.ones((8, 1, 3, 3), np.float32),
}


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node named after its output; a dot in `inputs` stands for an omitted input."""
    names = ["" if name == "." else name for name in inputs.split()]
    return helper.make_node(kind, names, [output], name=output, **attributes)


def graph_of(*nodes: onnx.NodeProto) -> ir.Graph:
    value = helper.make_tensor_value_info
    inputs = [value("image", TensorProto.FLOAT, None), value("sizes", TensorProto.INT64, None)]
    outputs = [value(nodes[-1].output[0], TensorProto.FLOAT, None)]
    tensors = [onnx.numpy_helper.from_array(values, name) for name, values in TENSORS.items()]
    return ir.serde.deserialize_graph(helper.make_graph(list(nodes), "g", inputs, outputs, tensors))


CHAINS = {
    "activation behind a convolution": (
        [node("Conv", "image w", "a"), node("Relu", "a", "relu"), node("Exp", "relu", "end")],
        ["relu"],
    ),
    "activation behind a float operator": ([node("Exp", "image", "a"), node("Relu", "a", "relu")], []),
    "sum between convolutions": (
        [
            node("Conv", "image w", "a"),
            node("Conv", "a w", "b"),
            node("Add", "a b", "sum"),
            node("Relu", "sum", "relu"),
            node("Conv", "relu w", "end"),
        ],
        ["sum", "relu"],
    ),
    "sum that is an output of the graph": (
        [node("Conv", "image w", "a"), node("Conv", "a w", "b"), node("Add", "a b", "sum")],
        [],
    ),
    "sum with the float image": (
        [node("Conv", "image w", "a"), node("Add", "a image", "sum"), node("Conv", "sum w", "end")],
        [],
    ),
    "sum with a constant": (
        [node("Conv", "image w", "a"), node("Add", "a w", "sum"), node("Conv", "sum w", "end")],
        [],
    ),
    "upsampling between convolutions": (
        [node("Conv", "image w", "a"), node("Resize", "a . . sizes", "grown"), node("Conv", "grown w", "end")],
        ["grown"],
    ),
    "upsampling of the class maps": (
        [node("Conv", "image w", "a"), node("Resize", "a . . sizes", "grown"), node("ReduceMax", "grown", "end")],
        [],
    ),
    "rejected sum also rejects the upsampling before it": (
        [
            node("Conv", "image w", "a"),
            node("Resize", "a . . sizes", "grown"),
            node("Add", "grown image", "sum"),
            node("Conv", "sum w", "end"),
        ],
        [],
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_operators_that_stay_in_int8(name: str) -> None:
    nodes, expected = CHAINS[name]
    graph = graph_of(*nodes)
    assert _int8_passthrough(graph, [each.name for each in nodes if each.op_type == "Conv"]) == expected


def test_sum_that_the_embedding_reads_stays_in_int8() -> None:
    nodes, expected = CHAINS["sum between convolutions"]
    graph = graph_of(*nodes[:-1], node("ReduceMean", "sum", "pooled"), node("Cast", "pooled", "embedding"), nodes[-1])
    pooled = next(each for each in graph if each.name == "embedding")
    graph.outputs.append(pooled.outputs[0])
    assert _int8_passthrough(graph, ["a", "b", "end"]) == expected
    graph.outputs.pop()
    assert _int8_passthrough(graph, ["a", "b", "end"]) == [], "any other operator needs the float sum"


def test_nothing_stays_in_int8_next_to_a_float_convolution() -> None:
    nodes, _ = CHAINS["sum between convolutions"]
    assert _int8_passthrough(graph_of(*nodes), ["a", "end"]) == []


def test_image_convolution_stays_in_float_and_depthwise_convolution_does_not() -> None:
    graph = graph_of(
        node("Conv", "image thin", "first"),
        node("Conv", "first depthwise", "second", group=8),
        node("Conv", "second w", "third"),
    )
    assert _quantizable(graph) == (["second", "third"], 1)
