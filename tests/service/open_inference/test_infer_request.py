"""Parsing of inference requests, and of responses by Triton's client."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.errors import BadInput, NotSupported
from service.open_inference.bytes_tensor import pack, unpack
from service.open_inference.infer_request import InferRequest, RequestedOutput, parse
from service.open_inference.infer_response import Head, Output, serialise
from service.open_inference.parameters import InferPriority
from service.open_inference.tensor_spec import ModelSignature, signature_of

TENSOR, ENCODED = signature_of("tensor", 5), signature_of("encoded", 5)
IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [1, 2, 3, 4, 5, 6]}
FILE = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(b"\xff\xd8").decode()]}
ABSENT = object()


def image(**changes: Any) -> dict[str, Any]:
    """The input with some fields changed or removed."""
    return {name: value for name, value in (IMAGE | changes).items() if value is not ABSENT}


def request_body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def parse_tensor(body: bytes, header: str | None = None) -> InferRequest:
    return parse(body, header, TENSOR)


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[[[1, 2, 3], [4, 5, 6]]]]])
def test_json_numbers_may_be_flat_or_nested(data: Any) -> None:
    request = parse_tensor(request_body(image(data=data), id="7"))
    assert np.asarray(request.images).tolist() == [[[[1, 2, 3], [4, 5, 6]]]]
    assert request.id == "7"
    assert [(output.spec.name, output.binary) for output in request.outputs] == [("mask", False), ("confidence", False)]
    assert request.priority == InferPriority()


@given(st.data())
def test_tensors_of_triton_client_are_parsed(data: st.DataObject) -> None:
    images = data.draw(arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 4)] * 3, st.just(3))))
    binary = data.draw(st.booleans())
    names = data.draw(st.lists(st.sampled_from(["mask", "confidence"]), unique=True))
    given_input = triton.InferInput("image", list(images.shape), "UINT8").set_data_from_numpy(
        images, binary_data=binary
    )
    requested = [triton.InferRequestedOutput(name, binary_data=data.draw(st.booleans())) for name in names]
    body, length = triton.InferenceServerClient.generate_request_body([given_input], outputs=requested)
    request = parse_tensor(body, None if length is None else str(length))
    np.testing.assert_array_equal(request.images, images)
    if names:
        assert [output.spec.name for output in request.outputs] == names
        assert [output.binary for output in request.outputs] == [output._binary for output in requested]
    else:
        assert all(output.binary for output in request.outputs)


def test_json_may_begin_with_a_byte_order_mark() -> None:
    """As .NET and PowerShell may send it."""
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
    request = parse_tensor(b"\xef\xbb\xbf" + json.dumps({"inputs": [image]}).encode(), None)
    assert np.asarray(request.images).ravel().tolist() == [1, 2, 3]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.booleans())
def test_encoded_images_of_triton_client_are_parsed(files: list[bytes], binary: bool) -> None:
    contents = [file if binary else base64.b64encode(file) for file in files]
    given_input = triton.InferInput("image_bytes", [len(files)], "BYTES")
    given_input.set_data_from_numpy(np.array(contents, np.object_), binary_data=binary)
    body, length = triton.InferenceServerClient.generate_request_body([given_input])
    assert parse(body, None if length is None else str(length), ENCODED).images == files


@given(st.data())
def test_triton_client_parses_responses(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
    signature = signature_of("tensor", data.draw(st.sampled_from([5, 300])))
    dtype: type[np.unsignedinteger[Any]] = np.uint8 if signature.outputs[0].datatype == "UINT8" else np.uint16
    values: dict[str, npt.NDArray[Any]] = {
        "mask": data.draw(arrays.arrays(dtype, shape)),
        "confidence": data.draw(arrays.arrays(np.uint8, shape)),
    }
    outputs = [
        Output(
            requested=RequestedOutput(spec=spec, binary=data.draw(st.booleans())), shape=shape, data=values[spec.name]
        )
        for spec in data.draw(st.permutations(signature.outputs))
    ]
    response = serialise(Head(model="seg", version=3, id=data.draw(st.none() | st.text()), bundle_version="v"), outputs)
    result = triton.InferenceServerClient.parse_response_body(
        b"".join(response.parts), header_length=response.json_length
    )
    for name, value in values.items():
        np.testing.assert_array_equal(result.as_numpy(name), value)
        assert result.as_numpy(name).dtype == value.dtype


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_unpack_reverses_pack(elements: list[bytes]) -> None:
    assert unpack(memoryview(pack(elements)), len(elements)) == elements


def test_png_in_json_is_base64_with_its_content_type() -> None:
    requested = RequestedOutput(spec=ENCODED.outputs[0], binary=False)
    response = serialise(
        Head(model="m", version=1, id=None, bundle_version="v"),
        [Output(requested=requested, shape=(2,), data=[b"\x89PNG", b"\xff"])],
    )
    fields = json.loads(b"".join(response.parts))
    (output,) = fields["outputs"]
    assert output["parameters"] == {"content_type": "base64"}
    assert [base64.b64decode(text) for text in output["data"]] == [b"\x89PNG", b"\xff"]
    assert "id" not in fields


def test_body_without_json_is_one_encoded_image() -> None:
    request = parse(b"\xff\xd8\xff", "0", ENCODED)
    assert request.images == [b"\xff\xd8\xff"]
    assert all(output.binary for output in request.outputs)
    with pytest.raises(BadInput, match="height and width"):
        parse(b"\xff\xd8\xff", "0", TENSOR)


def test_priority_and_timeout_are_parsed_and_unknown_parameters_ignored() -> None:
    priority = parse_tensor(
        request_body(IMAGE, parameters={"timeout": 2_500_000, "priority": 2, "custom": [1]})
    ).priority
    assert priority == InferPriority(timeout_s=2.5, urgency=1)
    assert priority.timeout_s == 2.5
    assert parse_tensor(request_body(IMAGE, parameters={"timeout": 0, "priority": 0})).priority == InferPriority()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0", "Inference-Header-Content-Length: 0"),
        (b"{", "not valid"),
        (b"[]", "must be an object"),
        (b'{"inputs": NaN}', "NaN is not JSON"),
        (b'{"inputs": -Infinity}', "not valid"),
        (b"[" * 100_000, "nested|too many elements"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested"),
        (b'{"inputs":[' + b"{}," * 50_000 + b"{}]}", "too many elements"),
        (request_body(), "one object"),
        (request_body(IMAGE, IMAGE), "one object"),
        (b'{"inputs": {}}', "one object"),
        (b'{"inputs": [1]}', "one object"),
        (request_body(image(name="picture")), "no input 'picture'.*image"),
        (request_body(image(name=ABSENT)), "no input None"),
        (request_body(image(datatype="FP32")), "UINT8"),
        (request_body(image(datatype="PIXELS")), "none of the protocol's"),
        (request_body(image(datatype=ABSENT)), "UINT8"),
        (request_body(image(shape=[1, 2, 3])), r"\[-1, -1, -1, 3\]"),
        (request_body(image(shape=[1, 1, 2, 4])), r"\[-1, -1, -1, 3\]"),
        (request_body(image(shape=[1, -1, -2, 3])), "dimensions of at least 1"),
        (request_body(image(shape=[1, 1, True, 3])), "list of integers"),
        (request_body(image(shape=[1, 1, 2.0, 3])), "list of integers"),
        (request_body(image(shape="1,1,2,3")), "list of integers"),
        (request_body(image(shape=[0, 1, 2, 3], data=[])), "empty"),
        (request_body(image(shape=[65, 1, 1, 3])), "at most 64"),
        (request_body(image(shape=[1, 1, 3, 3])), "expecting 9 elements, got 6"),
        (request_body(image(shape=[1, 10**30, 10**30, 3])), "elements, got 6"),
        (request_body(image(data=[1, 2, 3])), "expecting 6 elements, got 3"),
        (request_body(image(data=ABSENT)), "neither `data`"),
        (request_body(image(data="123456")), "neither `data`"),
        (request_body(image(data=["1"] * 6)), "neither `data`"),
        (request_body(image(data=[300] * 6)), "0 to 255"),
        (request_body(image(parameters=[1])), "must be an object"),
        (request_body(image(parameters={"binary_data_size": 6})), "both"),
        (request_body(image(data=ABSENT, parameters={"binary_data_size": "6"})), "integer"),
        (request_body(image(data=ABSENT, parameters={"binary_data_size": -6})), "integer"),
        (request_body(image(data=ABSENT, parameters={"binary_data_size": 6})), "expecting 6 additional bytes"),
        (request_body(IMAGE, outputs={}, id=7), "`id`"),
        (request_body(IMAGE, outputs=[1]), "list of objects"),
        (request_body(IMAGE, outputs="mask"), "list of objects"),
        (request_body(IMAGE, outputs=[{"name": "depth"}]), "no output 'depth'.*mask or confidence"),
        (request_body(IMAGE, outputs=[{"name": "mask"}, {"name": "mask"}]), "twice"),
        (request_body(IMAGE, outputs=[{"name": "mask", "parameters": {"binary_data": 1}}]), "true or false"),
        (request_body(IMAGE, parameters={"binary_data_output": "yes"}), "true or false"),
        (request_body(IMAGE, parameters=7), "must be an object"),
        (request_body(IMAGE, parameters={"timeout": -1}), "`timeout`"),
        (request_body(IMAGE, parameters={"timeout": 1.5}), "`timeout`"),
        (request_body(IMAGE, parameters={"priority": "high"}), "`priority`"),
        (request_body(IMAGE, parameters={"priority": 2**40}), "`priority`"),
    ],
)
def test_invalid_request_is_rejected_with_a_reason(body: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_tensor(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (request_body(image(parameters={"shared_memory_region": "r"})), "Shared memory"),
        (request_body(IMAGE, outputs=[{"name": "mask", "parameters": {"shared_memory_region": "r"}}]), "Shared memory"),
        (request_body(IMAGE, outputs=[{"name": "mask", "parameters": {"classification": 2}}]), "Classification"),
        (request_body(IMAGE, parameters={"sequence_id": 5}), "sequence_id"),
    ],
)
def test_unsupported_feature_is_rejected_with_its_name(body: bytes, message: str) -> None:
    with pytest.raises(NotSupported, match=message):
        parse_tensor(body)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("-1", "send the length"),
        ("abc", "send the length"),
        ("", "send the length"),
        ("1e3", "send the length"),
        ("99999", "send the length"),
        ("٣", "send the length"),
    ],
)
def test_invalid_header_length_is_rejected(header: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_tensor(request_body(IMAGE), header)


@pytest.mark.parametrize(
    ("size", "sent", "message"),
    [
        (6, 5, "expecting 1 additional"),
        (6, 7, "1 unexpected additional"),
        (5, 5, "expecting 6 elements, got 5"),
        (None, 6, "6 bytes follow the JSON"),
    ],
)
def test_inconsistent_binary_size_is_rejected(size: int | None, sent: int, message: str) -> None:
    given_input = image(data=ABSENT, parameters={} if size is None else {"binary_data_size": size})
    head = request_body(given_input)
    with pytest.raises(BadInput, match=message):
        parse_tensor(head + bytes(sent), str(len(head)))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [(b"\x05\0\0\0abc", "by 2 bytes"), (b"\x01\0\0\0ab", "1 bytes after"), (b"\1\0", "by 2 bytes")],
)
def test_inconsistent_element_length_is_rejected(tensor: bytes, message: str) -> None:
    head = request_body(FILE | {"data": None, "parameters": {"binary_data_size": len(tensor)}})
    with pytest.raises(BadInput, match=message):
        parse(head + tensor, str(len(head)), ENCODED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ["\xff\xd8"]}, "not base64"),
        ({"data": ["abc"]}, "not base64"),
        ({"data": [["/9g="]], "parameters": {"content_type": "str"}}, "content_type"),
        ({"data": [[["/9g="]]]}, "not base64"),
        ({"data": [5]}, "base64 strings"),
        ({"data": ["/9g=", "/9g="]}, "got 2"),
    ],
)
def test_elements_in_json_must_be_base64(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse(request_body(FILE | changes), None, ENCODED)


@given(st.binary(max_size=200), st.sampled_from([None, "0", "1", "5", "50", "x"]), st.sampled_from([TENSOR, ENCODED]))
def test_random_bytes_are_parsed_or_rejected(body: bytes, header: str | None, signature: ModelSignature) -> None:
    with suppress(BadInput, NotSupported):
        parse(body, header, signature)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
FIELD = st.sampled_from(["name", "shape", "datatype", "data", "parameters"])


@given(st.dictionaries(FIELD, JSON), JSON, JSON, JSON, st.binary(max_size=10))
def test_random_json_in_any_field_is_parsed_or_rejected(
    changes: dict[str, Any], outputs: Any, parameters: Any, ident: Any, tensors: bytes
) -> None:
    head = request_body(IMAGE | changes, outputs=outputs, parameters=parameters, id=ident)
    with suppress(BadInput, NotSupported):
        parse_tensor(head + tensors, str(len(head)))
