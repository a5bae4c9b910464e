"""Serialise inference responses: JSON, followed by the tensors in binary form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.open_inference import bytes_tensor, json_tensor
from service.open_inference.infer_request import RequestedOutput
from service.open_inference.tensor_spec import Shape

Part = bytes | memoryview

NUMPY_DTYPES = {"UINT8": "<u1", "UINT16": "<u2", "FP16": "<f2", "FP32": "<f4"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """A requested output and its values."""

    requested: RequestedOutput
    shape: Shape
    data: npt.NDArray[Any] | list[bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """Fields of a response besides its outputs; `id` is the request's, `ignored` what was not used of the files."""

    model: str
    version: int
    id: str | None
    bundle_version: str
    ignored: str | None = None


@dataclass(frozen=True, slots=True)
class InferResponse:
    """Body in parts: joining large tensors would block other threads."""

    parts: tuple[Part, ...]
    json_length: int | None
    """Bytes of JSON before the tensors; None: the whole body."""


def serialise(head: Head, outputs: Sequence[Output]) -> InferResponse:
    """Serialise a response, each output in its requested form."""
    binary = {output.requested.spec.name: _binary(output) for output in outputs if output.requested.binary}
    text = tuple(_json(head, outputs, binary))
    if not binary:
        return InferResponse(text, None)
    return InferResponse((*text, *binary.values()), sum(map(len, text)))


def _json(head: Head, outputs: Sequence[Output], binary: dict[str, Part]) -> Iterator[bytes]:
    fields: dict[str, Any] = {"model_name": head.model, "model_version": str(head.version)}
    if head.id is not None:
        fields["id"] = head.id
    fields["parameters"] = {"bundle_version": head.bundle_version}
    if head.ignored is not None:
        fields["parameters"]["ignored"] = head.ignored
    yield json.dumps(fields)[:-1].encode() + b', "outputs": ['
    for number, output in enumerate(outputs):
        yield b", " if number else b""
        yield from _output(output, binary.get(output.requested.spec.name))
    yield b"]}"


def _output(output: Output, binary: Part | None) -> Iterator[bytes]:
    spec, data = output.requested.spec, output.data
    fields: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(output.shape)}
    if binary is not None:
        yield json.dumps(fields | {"parameters": {"binary_data_size": len(binary)}}).encode()
    elif isinstance(data, list):
        encoding = {"content_type": bytes_tensor.BASE64}
        yield json.dumps(fields | {"parameters": encoding, "data": bytes_tensor.to_base64(data)}).encode()
    else:
        yield json.dumps(fields)[:-1].encode() + b', "data": '
        yield from json_tensor.write(data)
        yield b"}"


def _binary(output: Output) -> Part:
    if isinstance(output.data, list):
        return bytes_tensor.pack(output.data)
    flat = np.ascontiguousarray(output.data, NUMPY_DTYPES[output.requested.spec.datatype]).reshape(-1)
    return flat.view(np.uint8).data
