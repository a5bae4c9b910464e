"""The answer to a request for inference, as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.open_inference import bytes_tensor, json_tensor
from service.open_inference.infer_request import Wanted
from service.open_inference.tensor_spec import Shape

Part = bytes | memoryview

NUMPY = {"UINT8": "<u1", "UINT16": "<u2", "FP32": "<f4"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """An output with what is in it."""

    wanted: Wanted
    shape: Shape
    data: npt.NDArray[Any] | list[bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """Who answers whom."""

    model: str
    version: int
    id: str | None
    bundle_version: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A response body, in parts: copying large ones together would keep everything else waiting."""

    parts: tuple[Part, ...]
    json_length: int | None
    """Bytes of JSON in front of the tensors; None: it is JSON alone."""


def write(head: Head, outputs: Sequence[Output]) -> Answer:
    """Put an answer into the form that was asked for."""
    binary = {output.wanted.spec.name: _binary(output) for output in outputs if output.wanted.binary}
    text = tuple(_text(head, outputs, binary))
    if not binary:
        return Answer(text, None)
    return Answer((*text, *binary.values()), sum(map(len, text)))


def _text(head: Head, outputs: Sequence[Output], binary: dict[str, Part]) -> Iterator[bytes]:
    about: dict[str, Any] = {"model_name": head.model, "model_version": str(head.version)}
    if head.id is not None:
        about["id"] = head.id
    about["parameters"] = {"bundle_version": head.bundle_version}
    yield json.dumps(about)[:-1].encode() + b', "outputs": ['
    for number, output in enumerate(outputs):
        yield b", " if number else b""
        yield from _output(output, binary.get(output.wanted.spec.name))
    yield b"]}"


def _output(output: Output, binary: Part | None) -> Iterator[bytes]:
    spec, data = output.wanted.spec, output.data
    about: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(output.shape)}
    if binary is not None:
        yield json.dumps(about | {"parameters": {"binary_data_size": len(binary)}}).encode()
    elif isinstance(data, list):
        yield json.dumps(
            about | {"parameters": {"content_type": bytes_tensor.BASE64}, "data": bytes_tensor.to_text(data)}
        ).encode()
    else:
        yield json.dumps(about)[:-1].encode() + b', "data": '
        yield from json_tensor.write(data)
        yield b"}"


def _binary(output: Output) -> Part:
    if isinstance(output.data, list):
        return bytes_tensor.pack(output.data)
    flat = np.ascontiguousarray(output.data, NUMPY[output.wanted.spec.datatype]).reshape(-1)
    return flat.view(np.uint8).data
