"""Would TensorRT take this graph? A look at every node, without TensorRT."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import TensorProto
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from exporter.shape_derived import shape_derived_tensors
from exporter.tensorrt.operators import BY_VALUE, CASTABLE, DATA_AT, OPSETS, SHAPE_INPUTS, TYPES
from exporter.tensorrt.restrictions import RULES, Node


@dataclass(frozen=True, slots=True)
class Finding:
    """Why TensorRT would refuse a node."""

    operator: str
    problem: str
    node: str = ""


def check(model: onnx.ModelProto) -> list[Finding]:
    """Everything in a graph that TensorRT would refuse; empty for one that it takes.

    Args:
        model: with its weights; it is left as it is.
    """
    graph = onnx.shape_inference.infer_shapes(_with_constants_lifted(model), data_prop=True).graph
    types = _types(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    known = shape_derived_tensors(graph)
    found = [*_opset(model), *_small_integers_inside(graph, types)]
    for node in graph.node:
        problems = _problems(Node(node, constants), types, known)
        found += [Finding(node.op_type, problem, node.name) for problem in problems]
    return found


def summary(findings: list[Finding]) -> str:
    """In words, one clause for each kind of finding."""
    counted = Counter((finding.operator, finding.problem) for finding in findings)
    return "; ".join(
        f"{operator}: {problem}" + (f" ({count} times)" if count > 1 else "")
        for (operator, problem), count in counted.items()
    )


def _problems(node: Node, types: dict[str, int], known: set[str]) -> Iterator[str]:
    proto = node.proto
    if proto.domain not in {"", "ai.onnx"}:
        yield f"an operator of {proto.domain}, not of the standard"
        return
    if proto.op_type not in TYPES:
        yield "TensorRT has no such operator"
        return
    if proto.op_type in BY_VALUE:
        yield "its output's shape depends on what the image shows"
    place = DATA_AT.get(proto.op_type, 0)
    # The type of what stands behind an operator that is not of the standard is unknown, and not the problem.
    found = types.get(proto.input[place]) if len(proto.input) > place else None
    if found is not None and found not in TYPES[proto.op_type]:
        yield f"takes no {_name(found)}"
    if proto.op_type == "Cast" and node.attribute("to", 0) not in CASTABLE:
        yield f"TensorRT has no {_name(node.attribute('to', 0))}"
    for place in SHAPE_INPUTS.get(proto.op_type, ()):
        if len(proto.input) > place and proto.input[place] and proto.input[place] not in known:
            yield "its output's shape depends on more than the image's size"
    for rule in RULES.get(proto.op_type, ()):
        if problem := rule(node):
            yield problem


def _opset(model: onnx.ModelProto) -> list[Finding]:
    (version,) = [each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}]
    if version in OPSETS:
        return []
    return [Finding("the graph", f"opset {version}, every TensorRT 10 takes {OPSETS.start} to {OPSETS.stop - 1}")]


def _small_integers_inside(graph: onnx.GraphProto, types: dict[str, int]) -> list[Finding]:
    """TensorRT takes bytes as an input and gives them as an output; between, it has none."""
    edges = {value.name for value in (*graph.input, *graph.output)}
    return [
        Finding(node.op_type, "gives uint8 within the graph, which TensorRT has at its ends only", node.name)
        for node in graph.node
        for name in node.output
        if types.get(name) == TensorProto.UINT8 and name not in edges
    ]


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    values = (*graph.input, *graph.output, *graph.value_info)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _with_constants_lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with initializers for Constant nodes of whatever form."""
    graph = ir.from_proto(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    lifted: onnx.ModelProto = ir.to_proto(graph)
    return lifted


def _name(data_type: int) -> str:
    return str(TensorProto.DataType.Name(data_type)).lower()
