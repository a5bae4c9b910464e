"""What TensorRT asks of an operator beyond its types; from the same source as operators.py."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper

REDUCTIONS = tuple(
    f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
)
MOST_OF_TOP_K = 3840


@dataclass(frozen=True, slots=True)
class Node:
    """A node and what is known of its inputs."""

    proto: onnx.NodeProto
    constants: dict[str, onnx.TensorProto]
    """Of the whole graph."""

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value; strings as str."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def is_constant(self, place: int) -> bool:
        """Whether an input is known when the engine is built; one that is left out is."""
        inputs = self.proto.input
        return len(inputs) <= place or not inputs[place] or inputs[place] in self.constants

    def constant(self, place: int) -> Any:
        """An input's values as an array, or None."""
        inputs = self.proto.input
        if len(inputs) <= place or inputs[place] not in self.constants:
            return None
        return onnx.numpy_helper.to_array(self.constants[inputs[place]])


def _one_of(name: str, default: str, allowed: Collection[str]) -> Callable[[Node], str]:
    def rule(node: Node) -> str:
        found = node.attribute(name, default)
        return "" if found in allowed else f"{name} = {found}, TensorRT has {', '.join(sorted(allowed))}"

    return rule


def _must_be_constant(place: int, name: str) -> Callable[[Node], str]:
    return lambda node: "" if node.is_constant(place) else f"{name} must be a constant"


def _antialias(node: Node) -> str:
    return "antialias = 1, and TensorRT's resizing has none" if node.attribute("antialias", 0) else ""


def _nearest(node: Node) -> str:
    if node.attribute("mode", "nearest") != "nearest":
        return ""
    known = {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}
    return _one_of("nearest_mode", "round_prefer_floor", known)(node)


def _dilations(node: Node) -> str:
    return "dilations other than 1" if any(side != 1 for side in node.attribute("dilations", [])) else ""


def _two_or_three_sides(node: Node) -> str:
    sides = len(node.attribute("kernel_shape", [1, 1]))
    return "" if sides in {2, 3} else f"pools over {sides} sides, TensorRT over 2 or 3"


def _one_output(node: Node) -> str:
    return "gives more than its first output" if sum(map(bool, node.proto.output)) > 1 else ""


def _zero_point(node: Node) -> str:
    found = node.constant(2)
    if found is None:
        return "" if node.is_constant(2) else "the zero point must be a constant"
    if found.dtype != np.int8:
        return f"quantised to {found.dtype}, TensorRT's integers are int8"
    return "the zero point must be 0" if np.any(found) else ""


def _top_k(node: Node) -> str:
    if not node.attribute("sorted", 1):
        return "sorted = 0"
    count = node.constant(1)
    return f"K must be below {MOST_OF_TOP_K}" if count is not None and count.max(initial=0) >= MOST_OF_TOP_K else ""


def _zero(name: str) -> Callable[[Node], str]:
    return lambda node: f"{name} = {node.attribute(name, 0)}" if node.attribute(name, 0) else ""


def _constant_value(node: Node) -> str:
    unknown = {"sparse_value", "value_string", "value_strings"} & {each.name for each in node.proto.attribute}
    return f"holds a {unknown.pop()}" if unknown else ""


def _subgraph(_node: Node) -> str:
    return "has a graph of its own, into which this check does not look"


RULES: dict[str, tuple[Callable[[Node], str], ...]] = {
    "Resize": (
        _antialias,
        # Cubic it takes in newer versions, and promises in none.
        _one_of("mode", "nearest", {"nearest", "linear"}),
        _one_of(
            "coordinate_transformation_mode",
            "half_pixel",
            {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"},
        ),
        _one_of("keep_aspect_ratio_policy", "stretch", {"stretch"}),
        _nearest,
    ),
    "AveragePool": (_dilations, _two_or_three_sides),
    "MaxPool": (_dilations, _two_or_three_sides, _one_output),
    "LpPool": (_dilations,),
    "LayerNormalization": (_one_output,),
    "BatchNormalization": (_zero("training_mode"),),
    "CumSum": (_must_be_constant(1, "axis"),),
    "OneHot": (_must_be_constant(1, "depth"),),
    "Squeeze": (_must_be_constant(1, "axes"),),
    "Unsqueeze": (_must_be_constant(1, "axes"),),
    "QuantizeLinear": (_zero_point,),
    "DequantizeLinear": (_zero_point,),
    "ScatterND": (_one_of("reduction", "none", {"none"}),),
    "LSTM": (_zero("input_forget"), _zero("layout")),
    "TopK": (_top_k,),
    "Constant": (_constant_value,),
    **dict.fromkeys(REDUCTIONS, (_must_be_constant(1, "axes"),)),
    **dict.fromkeys(("If", "Loop", "Scan"), (_subgraph,)),
}
"""By operator: functions that say in words what TensorRT would refuse, or nothing."""
