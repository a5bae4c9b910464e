"""Inputs and outputs of the two kinds of model.

A `tensor` model takes pixels and returns masks; an `encoded` model takes image files and returns PNGs. A dimension of
-1 has any length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from service.errors import BadInput

Kind = Literal["tensor", "encoded"]
Shape = tuple[int, ...]

DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BF16", "BYTES"),
)
MAX_BATCH = 64
"""Images per request."""
MAX_UINT8_CLASSES = 256


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, datatype and shape of an input or output."""

    name: str
    datatype: str
    shape: Shape

    def metadata(self) -> dict[str, Any]:
        """Return its entry in the model metadata."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    def check(self, datatype: object, shape: object) -> Shape:
        """Validate the datatype and shape of a request; return the shape. Raises BadInput."""
        if datatype != self.datatype:
            known = "" if datatype in DATATYPES else f", which is none of the protocol's {', '.join(DATATYPES)}"
            raise BadInput(f"`datatype` of {self.name} is {datatype!r:.40}{known}: send {self.datatype}.")
        dims = _dims(self.name, shape)
        if not any(_matches(dims, allowed) for allowed in self._allowed_shapes()):
            raise BadInput(
                f"`shape` of {self.name} is {list(dims)}: send {list(self.shape)}, where -1 means any length."
            )
        if 0 in dims:
            raise BadInput(f"`shape` of {self.name} is {list(dims)}, which is empty: send at least one pixel.")
        if dims[0] > MAX_BATCH:
            raise BadInput(f"The request has {dims[0]} images: send at most {MAX_BATCH} per request.")
        return dims

    def _allowed_shapes(self) -> tuple[Shape, ...]:
        # Triton adds a dimension for the elements of each item: `exporter triton` writes [-1, 1].
        return (self.shape, (-1, 1)) if self.shape == (-1,) else (self.shape,)


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """The input and the outputs of a model."""

    kind: Kind
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]

    def output(self, name: object) -> TensorSpec:
        """Return an output by name. Raises BadInput."""
        for spec in self.outputs:
            if spec.name == name:
                return spec
        known = " or ".join(spec.name for spec in self.outputs)
        raise BadInput(f"The model has no output {name!r:.100}: request {known}.")


def signature_of(kind: Kind, classes: int, embedding: int | None = None) -> ModelSignature:
    """Return a model's signature; `embedding` is the length of the bundle's embeddings, if it has them."""
    embeddings = () if embedding is None else (TensorSpec("embedding", "FP16", (-1, embedding)),)
    if kind == "encoded":
        return ModelSignature(
            kind,
            TensorSpec("image_bytes", "BYTES", (-1,)),
            (TensorSpec("mask_png", "BYTES", (-1,)), TensorSpec("mean_confidence", "FP32", (-1,)), *embeddings),
        )
    mask_type = "UINT8" if classes <= MAX_UINT8_CLASSES else "UINT16"
    return ModelSignature(
        kind,
        TensorSpec("image", "UINT8", (-1, -1, -1, 3)),
        (TensorSpec("mask", mask_type, (-1, -1, -1)), TensorSpec("confidence", "UINT8", (-1, -1, -1)), *embeddings),
    )


def _dims(name: str, shape: object) -> Shape:
    if not isinstance(shape, list) or not all(type(dim) is int for dim in shape):
        raise BadInput(f"`shape` of {name} must be a list of integers.")
    if any(dim < 0 for dim in shape):
        raise BadInput(f"`shape` of {name} is {shape!r:.100}: send dimensions of at least 1.")
    return tuple(shape)


def _matches(dims: Shape, allowed: Shape) -> bool:
    return len(dims) == len(allowed) and all(b in (-1, a) for a, b in zip(dims, allowed, strict=True))
