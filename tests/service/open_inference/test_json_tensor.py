"""JSON numbers: extracted, parsed in chunks and written; compared with the parser of the standard library."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadInput
from service.open_inference import json_tensor
from service.open_inference.json_tensor import JsonNumbers, extract, write

Nested = Any
BYTE = st.integers(0, 255)
NESTED: st.SearchStrategy[Nested] = st.recursive(
    st.lists(BYTE, min_size=1), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=20
)


def flat(nested: Nested) -> list[int]:
    return [number for part in nested for number in flat(part)] if isinstance(nested, list) else [nested]


def parse(text: bytes) -> list[int]:
    (numbers,) = extract(text)[1]
    values: list[int] = numbers.read().tolist()
    return values


@given(NESTED, st.sampled_from([None, 1, 4]), st.sampled_from([(",", ":"), (" , ", " : ")]))
def test_nested_numbers_are_parsed_in_order(nested: Nested, indent: int | None, separators: tuple[str, str]) -> None:
    text = json.dumps({"name": "x", "data": nested, "more": [1]}, indent=indent, separators=separators).encode()
    rest, (array,) = extract(text)
    assert array.read().tolist() == flat(nested)
    assert json.loads(rest, parse_constant=lambda _: "placeholder") == {"name": "x", "data": "placeholder", "more": [1]}


@given(st.integers(1, 40), NESTED)
def test_chunk_size_does_not_change_the_result(chunk: int, nested: Nested) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_tensor, "CHUNK_BYTES", chunk)
        assert parse(json.dumps({"data": nested}).encode()) == flat(nested)


@given(st.text("[],0129 ", max_size=12), st.integers(1, 6))
def test_accepted_text_means_the_same_to_the_standard_library(inside: str, chunk: int) -> None:
    text = f'{{"data":[{inside}]}}'.encode()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_tensor, "CHUNK_BYTES", chunk)
            rest, arrays = extract(text)
            parsed = [array.read().tolist() for array in arrays]
        json.loads(rest, parse_constant=str)
    except (BadInput, ValueError):
        return
    assert [flat(json.loads(text)["data"])] == (parsed or [[]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[256]", "0 to 255"),
        ("[-1]", "0 to 255"),
        ("[" + "9" * 40 + "]", "0 to 255"),
        ("[" + "9" * 5000 + "]", "not valid"),
        ("[" + "9" * 1_000_000 + "]", "numbers only"),
        ("[1," + " " * 1_000_000 + "2]", "numbers only"),
        ("[1.5]", "must be integers"),
        ("[1e2]", "must be integers"),
        ("[1,true]", "must be integers"),
        ('[1,"2"]', "must be integers"),
        ("[1,,2]", "not valid"),
        ("[1,2,]", "not valid"),
        ("[1 2]", "not valid"),
        ("[[1][2]]", "not valid"),
        ("[1[,]2]", "not valid"),
        ("[01]", "not valid"),
        ("[" * 9 + "1" + "]" * 9, "nested"),
        ("[1,[2]", "not closed"),
    ],
)
def test_invalid_array_is_rejected_with_a_reason(data: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse(f'{{"data":{data}}}'.encode())


@pytest.mark.parametrize(
    "text", [b'{"data":["a","b"]}', b'{"data":[{"a":1}]}', b'{"x":"\\"data\\":[1]"}', b'{"date":[1]}']
)
def test_other_text_is_unchanged(text: bytes) -> None:
    assert extract(text) == (text, [])


@pytest.mark.parametrize("tensor", [b'{"data":[1]},', b'{"data":["a"]},'])
def test_data_may_occur_sixteen_times(tensor: bytes) -> None:
    extract(b"[" + tensor * 16)
    with pytest.raises(BadInput, match='"data" more than 16 times'):
        extract(b"[" + tensor * 17)


def test_empty_array_has_no_numbers() -> None:
    assert parse(b'{"data": [ ]}') == []


@given(st.lists(st.integers(0, 65535), max_size=50), st.integers(4, 40))
def test_written_numbers_are_json(values: list[int], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_tensor, "CHUNK_BYTES", chunk)
        assert json.loads(b"".join(write(np.array(values, np.uint16)))) == values


def test_json_numbers_parse_only_their_range() -> None:
    assert JsonNumbers(b"xx[7,8]yy", 2, 7).read().tolist() == [7, 8]
