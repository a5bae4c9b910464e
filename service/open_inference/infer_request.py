"""A request for inference, from the bytes of its body."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import BadInput, NotSupported
from service.open_inference import bytes_tensor, json_body
from service.open_inference.json_tensor import JsonNumbers
from service.open_inference.parameters import (
    Urgency,
    flag,
    parameters_of,
    refuse_shared_memory,
    urgency_of,
    whole,
)
from service.open_inference.tensor_spec import Face, Shape, TensorSpec

LONGEST_ID = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """An output that the client asks for, and whether in binary form."""

    spec: TensorSpec
    binary: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class InferRequest:
    """What a client asks."""

    id: str | None
    shape: Shape
    """Of the input."""
    images: npt.NDArray[np.uint8] | list[bytes]
    """The input: uint8 [N, H, W, 3] of the tensor model, N files of the encoded one."""
    outputs: tuple[Wanted, ...]
    urgency: Urgency

    def wants(self, name: str) -> bool:
        """Whether an output is asked for."""
        return any(wanted.spec.name == name for wanted in self.outputs)


def parse(body: bytes, header: str | None, face: Face) -> InferRequest:
    """Read a request.

    Args:
        body: Unpacked.
        header: `Inference-Header-Content-Length`, if it was sent.
        face: The model's.

    Raises:
        BadInput: The request is not sound, or does not fit the model.
        NotSupported: It asks for what this service leaves out.
    """
    if not body:
        raise BadInput("The body is empty: send JSON, or the file of a picture and Inference-Header-Content-Length: 0.")
    length = json_body.header_length(header, len(body))
    if length == 0:
        return _raw(body, face)
    asked = json_body.read(body if length is None else body[:length])
    shape, images = _input(asked.get("inputs"), face.input, memoryview(body)[len(body) if length is None else length :])
    parameters = parameters_of(asked, "the request")
    return InferRequest(
        id=_id(asked.get("id")),
        shape=shape,
        images=images,
        outputs=_outputs(asked.get("outputs"), face, binary=flag(parameters, "binary_data_output", default=False)),
        urgency=urgency_of(parameters),
    )


def _raw(body: bytes, face: Face) -> InferRequest:
    """A body that is the input itself, without JSON: the file of a picture."""
    if face.kind != "encoded":
        raise BadInput(
            "Without JSON (Inference-Header-Content-Length: 0) nothing tells the height and width of the image: send "
            "them, or send the file of the picture to the model that takes files."
        )
    return InferRequest(
        id=None, shape=(1,), images=[body], outputs=_outputs(None, face, binary=True), urgency=Urgency()
    )


def _id(value: object) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= LONGEST_ID):
        return value
    raise BadInput(f"`id` must be a string of at most {LONGEST_ID} characters.")


def _input(inputs: object, spec: TensorSpec, behind: memoryview) -> tuple[Shape, npt.NDArray[np.uint8] | list[bytes]]:
    """The one input: its shape and what is in it. `behind` is what the body holds behind the JSON."""
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadInput(f"`inputs` must be a list with one object, the tensor {spec.name}.")
    (given,) = inputs
    if given.get("name") != spec.name:
        raise BadInput(f"There is no input {given.get('name')!r:.100}: send {spec.name}.")
    parameters = parameters_of(given, spec.name)
    refuse_shared_memory(parameters)
    shape = spec.check(given.get("datatype"), given.get("shape"))
    size = whole(parameters, "binary_data_size", 2**63 - 1)
    if size is None:
        if len(behind):
            raise BadInput(f"{len(behind)} bytes come behind the JSON, and no `binary_data_size` speaks of them.")
        return shape, _from_json(given, parameters, spec, shape)
    if given.get("data") is not None:
        raise BadInput(f"{spec.name} has both `data` and `binary_data_size`: send one of them.")
    if size > len(behind):
        raise BadInput(f"`binary_data_size` of {spec.name} is {size}: expecting {size - len(behind)} additional bytes.")
    if size < len(behind):
        raise BadInput(
            f"`binary_data_size` of {spec.name} is {size}: {len(behind) - size} unexpected additional bytes."
        )
    return shape, _from_binary(behind, spec, shape)


def _from_binary(data: memoryview, spec: TensorSpec, shape: Shape) -> npt.NDArray[np.uint8] | list[bytes]:
    count = math.prod(shape)
    if spec.datatype == "BYTES":
        return bytes_tensor.unpack(data, count)
    _check_count(spec, shape, len(data))
    return np.frombuffer(data, np.uint8).reshape(shape)


def _from_json(
    given: dict[str, Any], parameters: dict[str, Any], spec: TensorSpec, shape: Shape
) -> npt.NDArray[np.uint8] | list[bytes]:
    data = given.get("data")
    if spec.datatype == "BYTES" and isinstance(data, list):
        texts = _flat(data)
        _check_count(spec, shape, len(texts))
        return bytes_tensor.from_text(texts, parameters.get("content_type"))
    if spec.datatype != "BYTES" and isinstance(data, JsonNumbers):
        numbers = data.read()
        _check_count(spec, shape, numbers.size)
        return numbers.reshape(shape)
    kind = "base64 strings" if spec.datatype == "BYTES" else "numbers"
    raise BadInput(f"{spec.name} has no `data`, a list of {kind}, and no `binary_data_size`: send one of them.")


def _check_count(spec: TensorSpec, shape: Shape, count: int) -> None:
    if count != math.prod(shape):
        raise BadInput(
            f"`shape` of {spec.name} is {list(shape)}, which are {math.prod(shape)} elements, and {count} were sent."
        )


def _flat(data: list[Any]) -> list[Any]:
    """The elements of a list of strings, which may stand in lists of their own."""
    return [element for part in data for element in (part if isinstance(part, list) else [part])]


def _outputs(outputs: object, face: Face, *, binary: bool) -> tuple[Wanted, ...]:
    """The outputs asked for; all of them, where none is."""
    if not outputs:
        return tuple(Wanted(spec=spec, binary=binary) for spec in face.outputs)
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise BadInput("`outputs` must be a list of objects.")
    wanted = [_output(output, face, binary=binary) for output in outputs]
    names = [one.spec.name for one in wanted]
    if len(set(names)) < len(names):
        raise BadInput("`outputs` names one output twice.")
    return tuple(wanted)


def _output(output: dict[str, Any], face: Face, *, binary: bool) -> Wanted:
    spec = face.output(output.get("name"))
    parameters = parameters_of(output, spec.name)
    refuse_shared_memory(parameters)
    if parameters.get("classification"):
        raise NotSupported("Classification of an output is not supported: a mask holds the class of every pixel.")
    return Wanted(spec=spec, binary=flag(parameters, "binary_data", default=binary))
