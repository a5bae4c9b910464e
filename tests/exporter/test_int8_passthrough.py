"""What stays in integers between convolutions, on graphs small enough to see."""

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from onnx import TensorProto, helper

from exporter.carried import carried
from exporter.quantize import _with_weights


def node(kind: str, inputs: str, output: str) -> onnx.NodeProto:
    """Named by its output; "" in the place of an input that is left out is written as a dot."""
    names = ["" if name == "." else name for name in inputs.split()]
    return helper.make_node(kind, names, [output], name=output)


def graph_of(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    value = helper.make_tensor_value_info
    return helper.make_graph(
        list(nodes),
        "g",
        [value("image", TensorProto.FLOAT, None)],
        [value(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.ones((8, 8, 1, 1), np.float32), "w")],
    )


CHAINS = {
    "an activation is part of its convolution": (
        [node("Conv", "image w", "a"), node("Relu", "a", "relu"), node("Exp", "relu", "end")],
        ["relu"],
    ),
    "but not of something in float": ([node("Exp", "image", "a"), node("Relu", "a", "relu")], []),
    "a sum between convolutions": (
        [
            node("Conv", "image w", "a"),
            node("Conv", "a w", "b"),
            node("Add", "a b", "sum"),
            node("Relu", "sum", "relu"),
            node("Conv", "relu w", "end"),
        ],
        ["sum", "relu"],
    ),
    "a sum that the end of the graph reads": (
        [node("Conv", "image w", "a"), node("Conv", "a w", "b"), node("Add", "a b", "sum")],
        [],
    ),
    "a sum with something in float": (
        [node("Conv", "image w", "a"), node("Add", "a image", "sum"), node("Conv", "sum w", "end")],
        [],
    ),
    "a sum with what nobody made": (
        [node("Conv", "image w", "a"), node("Add", "a w", "sum"), node("Conv", "sum w", "end")],
        [],
    ),
    "a map that grows between convolutions": (
        [node("Conv", "image w", "a"), node("Resize", "a . . sizes", "grown"), node("Conv", "grown w", "end")],
        ["grown"],
    ),
    "class maps that grow to the image's size": (
        [node("Conv", "image w", "a"), node("Resize", "a . . sizes", "grown"), node("ReduceMax", "grown", "end")],
        [],
    ),
    "one that falls out takes its neighbour with it": (
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
def test_what_is_carried(name: str) -> None:
    nodes, expected = CHAINS[name]
    graph = graph_of(*nodes)
    assert carried(graph, [each.name for each in nodes if each.op_type == "Conv"]) == expected


def test_a_convolution_in_float_carries_nothing() -> None:
    nodes, _ = CHAINS["a sum between convolutions"]
    assert carried(graph_of(*nodes), ["a", "end"]) == []


def test_what_reads_an_image_stays_in_float_and_what_reads_each_channel_alone_does_not() -> None:
    image, alone = np.ones((8, 3, 1, 1), np.float32), np.ones((8, 1, 3, 3), np.float32)
    graph = graph_of(
        node("Conv", "image thin", "first"), node("Conv", "first alone", "second"), node("Conv", "second w", "third")
    )
    graph.node[1].attribute.append(helper.make_attribute("group", 8))
    graph.initializer.extend(
        onnx.numpy_helper.from_array(values, name) for name, values in (("thin", image), ("alone", alone))
    )
    assert _with_weights(graph) == (["second", "third"], 1)
