"""Inputs and outputs of a graph in Triton's terms, read from the ONNX file so that config.pbtxt agrees with it."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from exporter.bundle import BundleError

DATA_TYPES: dict[int, str] = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.UINT16: "TYPE_UINT16"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output."""

    name: str
    data_type: str
    """`TYPE_UINT8` or `TYPE_UINT16`."""
    dims: tuple[int, ...]
    """Without the batch; -1: any length."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs in the order of the graph."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read_signature(graph: Path) -> Signature:
    """Read the signature of an ONNX file.

    Raises:
        BundleError: A tensor is not uint8 or uint16, or its first dimension is not a dynamic batch.
    """
    model = onnx.load(graph, load_external_data=False)
    return Signature(
        inputs=tuple(_tensor(value, graph) for value in model.graph.input),
        outputs=tuple(_tensor(value, graph) for value in model.graph.output),
    )


def _tensor(value: onnx.ValueInfoProto, graph: Path) -> Tensor:
    tensor = value.type.tensor_type
    dims = [-1 if dim.dim_param else dim.dim_value for dim in tensor.shape.dim]
    if tensor.elem_type not in DATA_TYPES or dims[:1] != [-1]:
        raise BundleError(
            f"{graph}: {value.name} must be uint8 or uint16 with a dynamic batch; export the bundle again"
        )
    return Tensor(value.name, DATA_TYPES[tensor.elem_type], tuple(dims[1:]))
