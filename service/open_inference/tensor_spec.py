"""What the two models take and give: tensors in and out, or the bytes of pictures in and PNGs out.

Each has one input. A side of -1 takes any length.
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
LARGEST_BATCH = 64
"""Images in one request."""
MOST_CLASSES_OF_UINT8 = 256


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or an output."""

    name: str
    datatype: str
    shape: Shape

    def metadata(self) -> dict[str, Any]:
        """As model metadata lists it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    def check(self, datatype: object, shape: object) -> Shape:
        """Hold what a client announced against what there is, and return the shape.

        Raises:
            BadInput: Another datatype, or a shape that does not fit.
        """
        if datatype != self.datatype:
            known = "" if datatype in DATATYPES else f", and is none of the protocol's {', '.join(DATATYPES)}"
            raise BadInput(f"`datatype` of {self.name} is {datatype!r:.40}{known}: send {self.datatype}.")
        sides = _sides(self.name, shape)
        if not any(_fits(sides, wanted) for wanted in self._shapes()):
            raise BadInput(f"`shape` of {self.name} is {list(sides)}: send {list(self.shape)}, where -1 is any length.")
        if 0 in sides:
            raise BadInput(f"`shape` of {self.name} is {list(sides)}, which holds nothing: send at least one pixel.")
        if sides[0] > LARGEST_BATCH:
            raise BadInput(
                f"{sides[0]} images in one request: send {LARGEST_BATCH} at most, and the others in another."
            )
        return sides

    def _shapes(self) -> tuple[Shape, ...]:
        # Triton's batches have the elements of a tensor in a dimension of their own: `exporter triton` writes [-1, 1].
        return (self.shape, (-1, 1)) if self.shape == (-1,) else (self.shape,)


@dataclass(frozen=True, slots=True)
class Face:
    """The input and the outputs of a model."""

    kind: Kind
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]

    def output(self, name: object) -> TensorSpec:
        """An output by name.

        Raises:
            BadInput: There is none.
        """
        for spec in self.outputs:
            if spec.name == name:
                return spec
        raise BadInput(f"There is no output {name!r:.100}: ask for {' or '.join(spec.name for spec in self.outputs)}.")


def face_of(kind: Kind, classes: int) -> Face:
    """The face of a model that tells so many classes apart."""
    if kind == "encoded":
        return Face(
            kind,
            TensorSpec("image_bytes", "BYTES", (-1,)),
            (TensorSpec("mask_png", "BYTES", (-1,)), TensorSpec("mean_confidence", "FP32", (-1,))),
        )
    ids = "UINT8" if classes <= MOST_CLASSES_OF_UINT8 else "UINT16"
    return Face(
        kind,
        TensorSpec("image", "UINT8", (-1, -1, -1, 3)),
        (TensorSpec("mask", ids, (-1, -1, -1)), TensorSpec("confidence", "UINT8", (-1, -1, -1))),
    )


def _sides(name: str, shape: object) -> Shape:
    if not isinstance(shape, list) or not all(type(side) is int for side in shape):
        raise BadInput(f"`shape` of {name} must be a list of whole numbers.")
    if any(side < 0 for side in shape):
        raise BadInput(f"`shape` of {name} is {shape!r:.100}: no side may be negative in a request.")
    return tuple(shape)


def _fits(sides: Shape, wanted: Shape) -> bool:
    return len(sides) == len(wanted) and all(b in (-1, a) for a, b in zip(sides, wanted, strict=True))
