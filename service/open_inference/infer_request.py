"""Parse the body of an inference request."""

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
    InferPriority,
    flag,
    infer_priority,
    integer,
    parameters_of,
    reject_shared_memory,
)
from service.open_inference.tensor_spec import ModelSignature, Shape, TensorSpec

MAX_ID_LENGTH = 1000

Images = npt.NDArray[np.uint8] | list[bytes]
"""uint8 [N, H, W, 3], RGB, for a tensor model; N encoded images for an encoded model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestedOutput:
    """A requested output, and whether in binary form."""

    spec: TensorSpec
    binary: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class InferRequest:
    """A parsed inference request."""

    id: str | None
    shape: Shape
    """Shape of the input."""
    images: Images
    outputs: tuple[RequestedOutput, ...]
    priority: InferPriority


def parse(body: bytes, header: str | None, signature: ModelSignature) -> InferRequest:
    """Parse a decompressed request and validate it against the signature of its model.

    `header` is the value of `Inference-Header-Content-Length`. Raises BadInput, or NotSupported for a part of the
    protocol that the service does not implement.
    """
    if not body:
        raise BadInput("The body is empty: send JSON, or an encoded image and Inference-Header-Content-Length: 0.")
    length = json_body.header_length(header, len(body))
    if length == 0:
        return _raw(body, signature)
    fields = json_body.read(body if length is None else body[:length])
    tensors = memoryview(body)[len(body) if length is None else length :]
    shape, images = _input(fields.get("inputs"), signature.input, tensors)
    parameters = parameters_of(fields, "the request")
    return InferRequest(
        id=_id(fields.get("id")),
        shape=shape,
        images=images,
        outputs=_outputs(
            fields.get("outputs"), signature, binary=flag(parameters, "binary_data_output", default=False)
        ),
        priority=infer_priority(parameters),
    )


def _raw(body: bytes, signature: ModelSignature) -> InferRequest:
    if signature.kind != "encoded":
        raise BadInput(
            "A body without JSON (Inference-Header-Content-Length: 0) does not state the height and width of the "
            "image: send JSON, or send an encoded image to the model that takes them."
        )
    outputs = _outputs(None, signature, binary=True)
    return InferRequest(id=None, shape=(1,), images=[body], outputs=outputs, priority=InferPriority())


def _id(value: object) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= MAX_ID_LENGTH):
        return value
    raise BadInput(f"`id` must be a string of at most {MAX_ID_LENGTH} characters.")


def _input(inputs: object, spec: TensorSpec, tensors: memoryview) -> tuple[Shape, Images]:
    """Return the shape and the images of the input; `tensors` follow the JSON in the body."""
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadInput(f"`inputs` must be a list with one object, the tensor {spec.name}.")
    (given,) = inputs
    if given.get("name") != spec.name:
        raise BadInput(f"The model has no input {given.get('name')!r:.100}: send {spec.name}.")
    parameters = parameters_of(given, spec.name)
    reject_shared_memory(parameters)
    shape = spec.check(given.get("datatype"), given.get("shape"))
    size = integer(parameters, "binary_data_size", 2**63 - 1)
    if size is None:
        if len(tensors):
            raise BadInput(f"{len(tensors)} bytes follow the JSON: declare them with the parameter `binary_data_size`.")
        return shape, _from_json(given, parameters, spec, shape)
    if given.get("data") is not None:
        raise BadInput(f"{spec.name} has both `data` and `binary_data_size`: send one of them.")
    if size > len(tensors):
        missing = size - len(tensors)
        raise BadInput(f"`binary_data_size` of {spec.name} is {size}: expecting {missing} additional bytes.")
    if size < len(tensors):
        surplus = len(tensors) - size
        raise BadInput(f"`binary_data_size` of {spec.name} is {size}: {surplus} unexpected additional bytes.")
    return shape, _from_binary(tensors, spec, shape)


def _from_binary(data: memoryview, spec: TensorSpec, shape: Shape) -> Images:
    if spec.datatype == "BYTES":
        return bytes_tensor.unpack(data, math.prod(shape))
    _check_count(spec, shape, len(data))
    return np.frombuffer(data, np.uint8).reshape(shape)


def _from_json(given: dict[str, Any], parameters: dict[str, Any], spec: TensorSpec, shape: Shape) -> Images:
    data = given.get("data")
    if spec.datatype == "BYTES" and isinstance(data, list):
        texts = _flat(data)
        _check_count(spec, shape, len(texts))
        return bytes_tensor.from_base64(texts, parameters.get("content_type"))
    if spec.datatype != "BYTES" and isinstance(data, JsonNumbers):
        numbers = data.read()
        _check_count(spec, shape, numbers.size)
        return numbers.reshape(shape)
    kind = "base64 strings" if spec.datatype == "BYTES" else "numbers"
    raise BadInput(f"{spec.name} has neither `data`, a list of {kind}, nor `binary_data_size`: send one of them.")


def _check_count(spec: TensorSpec, shape: Shape, count: int) -> None:
    if count != math.prod(shape):
        raise BadInput(f"`shape` of {spec.name} is {list(shape)}: expecting {math.prod(shape)} elements, got {count}.")


def _flat(data: list[Any]) -> list[Any]:
    return [element for part in data for element in (part if isinstance(part, list) else [part])]


def _outputs(outputs: object, signature: ModelSignature, *, binary: bool) -> tuple[RequestedOutput, ...]:
    if not outputs:
        return tuple(RequestedOutput(spec=spec, binary=binary) for spec in signature.outputs)
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise BadInput("`outputs` must be a list of objects.")
    requested = tuple(_output(output, signature, binary=binary) for output in outputs)
    if len({output.spec.name for output in requested}) < len(requested):
        raise BadInput("`outputs` names an output twice: name each once.")
    return requested


def _output(output: dict[str, Any], signature: ModelSignature, *, binary: bool) -> RequestedOutput:
    spec = signature.output(output.get("name"))
    parameters = parameters_of(output, spec.name)
    reject_shared_memory(parameters)
    if parameters.get("classification"):
        raise NotSupported("Classification of an output is not supported: the mask holds the class of every pixel.")
    return RequestedOutput(spec=spec, binary=flag(parameters, "binary_data", default=binary))
