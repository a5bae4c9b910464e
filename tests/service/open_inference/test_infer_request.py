"""Requests: what is read, what is refused, and in which words; answers read back by Triton's client."""

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
from service.open_inference.infer_request import InferRequest, Wanted, parse
from service.open_inference.infer_response import Head, Output, write
from service.open_inference.parameters import Urgency
from service.open_inference.tensor_spec import face_of

TENSOR, ENCODED = face_of("tensor", 5), face_of("encoded", 5)
IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [1, 2, 3, 4, 5, 6]}
FILE = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(b"\xff\xd8").decode()]}
NOTHING = object()


def image(**changes: Any) -> dict[str, Any]:
    """The input with some of its fields changed, or taken out."""
    return {name: value for name, value in (IMAGE | changes).items() if value is not NOTHING}


def asked(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def read(body: bytes, header: str | None = None) -> InferRequest:
    return parse(body, header, TENSOR)


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[[[1, 2, 3], [4, 5, 6]]]]])
def test_json_numbers_flat_and_nested(data: Any) -> None:
    request = read(asked(image(data=data), id="7"))
    assert np.asarray(request.images).tolist() == [[[[1, 2, 3], [4, 5, 6]]]]
    assert request.id == "7"
    assert [(wanted.spec.name, wanted.binary) for wanted in request.outputs] == [("mask", False), ("confidence", False)]
    assert request.urgency == Urgency()


@given(st.data())
def test_clients_bodies_are_read_back(data: st.DataObject) -> None:
    """What Triton's client writes: numbers or files, binary or JSON, with any outputs."""
    images = data.draw(arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 4)] * 3, st.just(3))))
    binary = data.draw(st.booleans())
    names = data.draw(st.lists(st.sampled_from(["mask", "confidence"]), unique=True))
    given_input = triton.InferInput("image", list(images.shape), "UINT8").set_data_from_numpy(
        images, binary_data=binary
    )
    wanted = [triton.InferRequestedOutput(name, binary_data=data.draw(st.booleans())) for name in names]
    body, length = triton.InferenceServerClient.generate_request_body([given_input], outputs=wanted)
    request = read(body, None if length is None else str(length))
    np.testing.assert_array_equal(request.images, images)
    if names:
        assert [one.spec.name for one in request.outputs] == names
        assert [one.binary for one in request.outputs] == [one._binary for one in wanted]
    else:
        assert all(one.binary for one in request.outputs)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.booleans())
def test_clients_files_are_read_back(files: list[bytes], binary: bool) -> None:
    contents = [file if binary else base64.b64encode(file) for file in files]
    given_input = triton.InferInput("image_bytes", [len(files)], "BYTES")
    given_input.set_data_from_numpy(np.array(contents, np.object_), binary_data=binary)
    body, length = triton.InferenceServerClient.generate_request_body([given_input])
    assert parse(body, None if length is None else str(length), ENCODED).images == files


@given(st.data())
def test_answers_are_read_by_triton_client(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
    face = face_of("tensor", data.draw(st.sampled_from([5, 300])))
    dtype: type[np.unsignedinteger[Any]] = np.uint8 if face.outputs[0].datatype == "UINT8" else np.uint16
    values: dict[str, npt.NDArray[Any]] = {
        "mask": data.draw(arrays.arrays(dtype, shape)),
        "confidence": data.draw(arrays.arrays(np.uint8, shape)),
    }
    outputs = [
        Output(wanted=Wanted(spec=spec, binary=data.draw(st.booleans())), shape=shape, data=values[spec.name])
        for spec in data.draw(st.permutations(face.outputs))
    ]
    answer = write(Head(model="seg", version=3, id=data.draw(st.none() | st.text()), bundle_version="v"), outputs)
    result = triton.InferenceServerClient.parse_response_body(b"".join(answer.parts), header_length=answer.json_length)
    for name, value in values.items():
        np.testing.assert_array_equal(result.as_numpy(name), value)
        assert result.as_numpy(name).dtype == value.dtype


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_elements_of_bytes_come_back(elements: list[bytes]) -> None:
    assert unpack(memoryview(pack(elements)), len(elements)) == elements


def test_a_mask_of_bytes_in_json_is_base64_and_says_so() -> None:
    wanted = Wanted(spec=ENCODED.outputs[0], binary=False)
    answer = write(
        Head(model="m", version=1, id=None, bundle_version="v"),
        [Output(wanted=wanted, shape=(2,), data=[b"\x89PNG", b"\xff"])],
    )
    said = json.loads(b"".join(answer.parts))
    (output,) = said["outputs"]
    assert output["parameters"] == {"content_type": "base64"}
    assert [base64.b64decode(text) for text in output["data"]] == [b"\x89PNG", b"\xff"]
    assert "id" not in said


def test_a_raw_body_is_one_file() -> None:
    request = parse(b"\xff\xd8\xff", "0", ENCODED)
    assert request.images == [b"\xff\xd8\xff"]
    assert all(wanted.binary for wanted in request.outputs)
    with pytest.raises(BadInput, match="height and width"):
        parse(b"\xff\xd8\xff", "0", TENSOR)


def test_how_soon_it_is_wanted() -> None:
    urgency = read(asked(IMAGE, parameters={"timeout": 2_500_000, "priority": 2, "of_my_own": [1]})).urgency
    assert urgency == Urgency(timeout_us=2_500_000, priority=2)
    assert urgency.timeout_s == 2.5
    assert read(asked(IMAGE, parameters={"timeout": 0, "priority": 0})).urgency == Urgency()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0", "Inference-Header-Content-Length: 0"),
        (b"{", "not valid"),
        (b"[]", "must be an object"),
        (b'{"inputs": NaN}', "NaN is no JSON"),
        (b'{"inputs": -Infinity}', "not valid"),
        (b"[" * 100_000, "nested|more parts"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested"),
        (b'{"inputs":[' + b"{}," * 50_000 + b"{}]}", "more parts"),
        (asked(), "one object"),
        (asked(IMAGE, IMAGE), "one object"),
        (b'{"inputs": {}}', "one object"),
        (b'{"inputs": [1]}', "one object"),
        (asked(image(name="picture")), "no input 'picture'.*image"),
        (asked(image(name=NOTHING)), "no input None"),
        (asked(image(datatype="FP32")), "UINT8"),
        (asked(image(datatype="PIXELS")), "none of the protocol's"),
        (asked(image(datatype=NOTHING)), "UINT8"),
        (asked(image(shape=[1, 2, 3])), r"\[-1, -1, -1, 3\]"),
        (asked(image(shape=[1, 1, 2, 4])), r"\[-1, -1, -1, 3\]"),
        (asked(image(shape=[1, -1, -2, 3])), "negative"),
        (asked(image(shape=[1, 1, True, 3])), "whole numbers"),
        (asked(image(shape=[1, 1, 2.0, 3])), "whole numbers"),
        (asked(image(shape="1,1,2,3")), "whole numbers"),
        (asked(image(shape=[0, 1, 2, 3], data=[])), "holds nothing"),
        (asked(image(shape=[65, 1, 1, 3])), "64 at most"),
        (asked(image(shape=[1, 1, 3, 3])), "9 elements, and 6 were sent"),
        (asked(image(shape=[1, 10**30, 10**30, 3])), "elements, and 6 were sent"),
        (asked(image(data=[1, 2, 3])), "6 elements, and 3 were sent"),
        (asked(image(data=NOTHING)), "no `data`"),
        (asked(image(data="123456")), "no `data`"),
        (asked(image(data=["1"] * 6)), "no `data`"),
        (asked(image(data=[300] * 6)), "0 to 255"),
        (asked(image(parameters=[1])), "must be an object"),
        (asked(image(parameters={"binary_data_size": 6})), "both"),
        (asked(image(data=NOTHING, parameters={"binary_data_size": "6"})), "whole number"),
        (asked(image(data=NOTHING, parameters={"binary_data_size": -6})), "whole number"),
        (asked(image(data=NOTHING, parameters={"binary_data_size": 6})), "expecting 6 additional bytes"),
        (asked(IMAGE, outputs={}, id=7), "`id`"),
        (asked(IMAGE, outputs=[1]), "list of objects"),
        (asked(IMAGE, outputs="mask"), "list of objects"),
        (asked(IMAGE, outputs=[{"name": "depth"}]), "no output 'depth'.*mask or confidence"),
        (asked(IMAGE, outputs=[{"name": "mask"}, {"name": "mask"}]), "twice"),
        (asked(IMAGE, outputs=[{"name": "mask", "parameters": {"binary_data": 1}}]), "true or false"),
        (asked(IMAGE, parameters={"binary_data_output": "yes"}), "true or false"),
        (asked(IMAGE, parameters=7), "must be an object"),
        (asked(IMAGE, parameters={"timeout": -1}), "`timeout`"),
        (asked(IMAGE, parameters={"timeout": 1.5}), "`timeout`"),
        (asked(IMAGE, parameters={"priority": "high"}), "`priority`"),
        (asked(IMAGE, parameters={"priority": 2**40}), "`priority`"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read(body)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (asked(image(parameters={"shared_memory_region": "r"})), "Shared memory"),
        (asked(IMAGE, outputs=[{"name": "mask", "parameters": {"shared_memory_region": "r"}}]), "Shared memory"),
        (asked(IMAGE, outputs=[{"name": "mask", "parameters": {"classification": 2}}]), "Classification"),
        (asked(IMAGE, parameters={"sequence_id": 5}), "sequence_id"),
    ],
)
def test_what_is_left_out_is_said(body: bytes, says: str) -> None:
    with pytest.raises(NotSupported, match=says):
        read(body)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("-1", "must say"),
        ("abc", "must say"),
        ("", "must say"),
        ("1e3", "must say"),
        ("99999", "must say"),
        ("٣", "must"),
    ],
)
def test_header_lengths_out_of_range(header: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read(asked(IMAGE), header)


@pytest.mark.parametrize(
    ("size", "sent", "says"),
    [
        (6, 5, "expecting 1 additional"),
        (6, 7, "1 unexpected additional"),
        (5, 5, "6 elements, and 5"),
        (None, 6, "6 bytes"),
    ],
)
def test_binary_sizes_that_do_not_add_up(size: int | None, sent: int, says: str) -> None:
    given_input = image(data=NOTHING, parameters={} if size is None else {"binary_data_size": size})
    head = asked(given_input)
    with pytest.raises(BadInput, match=says):
        read(head + bytes(sent), str(len(head)))


@pytest.mark.parametrize(
    ("tensor", "says"),
    [(b"\x05\0\0\0abc", "2 bytes behind"), (b"\x01\0\0\0ab", "1 bytes come behind"), (b"\1\0", "2 bytes behind")],
)
def test_bytes_whose_lengths_do_not_add_up(tensor: bytes, says: str) -> None:
    head = asked(FILE | {"data": None, "parameters": {"binary_data_size": len(tensor)}})
    with pytest.raises(BadInput, match=says):
        parse(head + tensor, str(len(head)), ENCODED)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": ["\xff\xd8"]}, "no base64"),
        ({"data": ["abc"]}, "no base64"),
        ({"data": [["/9g="]], "parameters": {"content_type": "str"}}, "content_type"),
        ({"data": [[["/9g="]]]}, "no base64"),
        ({"data": [5]}, "base64 strings"),
        ({"data": ["/9g=", "/9g="]}, "2 were sent"),
    ],
)
def test_files_in_json_must_be_base64(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse(asked(FILE | changes), None, ENCODED)


@given(st.binary(max_size=200), st.sampled_from([None, "0", "1", "5", "50", "x"]), st.sampled_from([TENSOR, ENCODED]))
def test_any_bytes_are_read_or_refused(body: bytes, header: str | None, face: Any) -> None:
    with suppress(BadInput, NotSupported):
        parse(body, header, face)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
FIELD = st.sampled_from(["name", "shape", "datatype", "data", "parameters"])


@given(st.dictionaries(FIELD, JSON), JSON, JSON, JSON, st.binary(max_size=10))
def test_any_json_in_any_field_is_read_or_refused(
    changes: dict[str, Any], outputs: Any, parameters: Any, ident: Any, behind: bytes
) -> None:
    head = asked(IMAGE | changes, outputs=outputs, parameters=parameters, id=ident)
    with suppress(BadInput, NotSupported):
        read(head + behind, str(len(head)))
