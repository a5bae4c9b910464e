"""What a graph takes and gives, in Triton's words: read from the file, so that config.pbtxt cannot say otherwise."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from exporter.bundle import BundleError

DATA_TYPES: dict[int, str] = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.UINT16: "TYPE_UINT16"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output: its sides without the batch, -1 where any length goes."""

    name: str
    data_type: str
    """`TYPE_UINT8` or `TYPE_UINT16`."""
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a graph, in its order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read_signature(graph: Path) -> Signature:
    """The signature of an ONNX file.

    Raises:
        BundleError: A tensor of a type that no bundle has, or without a dynamic batch in front.
    """
    model = onnx.load(graph, load_external_data=False)
    return Signature(
        inputs=tuple(_tensor(value, graph) for value in model.graph.input),
        outputs=tuple(_tensor(value, graph) for value in model.graph.output),
    )


def _tensor(value: onnx.ValueInfoProto, graph: Path) -> Tensor:
    kind = value.type.tensor_type
    sides = [-1 if side.dim_param else side.dim_value for side in kind.shape.dim]
    if kind.elem_type not in DATA_TYPES or sides[:1] != [-1]:
        raise BundleError(f"{graph}: {value.name} is not a bundle's tensor; export the bundle again")
    return Tensor(value.name, DATA_TYPES[kind.elem_type], tuple(sides[1:]))
