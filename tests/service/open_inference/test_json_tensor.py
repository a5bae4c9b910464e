"""Numbers of JSON: cut out, read in pieces, written; held against the standard library's parser."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadInput
from service.open_inference import json_tensor
from service.open_inference.json_tensor import JsonNumbers, cut, write

Nested = Any
BYTE = st.integers(0, 255)
NESTED: st.SearchStrategy[Nested] = st.recursive(
    st.lists(BYTE, min_size=1), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=20
)


def flat(nested: Nested) -> list[int]:
    return [number for part in nested for number in flat(part)] if isinstance(nested, list) else [nested]


def read(text: bytes) -> list[int]:
    (found,) = cut(text)[1]
    values: list[int] = found.read().tolist()
    return values


@given(NESTED, st.sampled_from([None, 1, 4]), st.sampled_from([(",", ":"), (" , ", " : ")]))
def test_nested_numbers_are_read_in_their_order(
    nested: Nested, indent: int | None, separators: tuple[str, str]
) -> None:
    text = json.dumps({"name": "x", "data": nested, "more": [1]}, indent=indent, separators=separators).encode()
    rest, (array,) = cut(text)
    assert array.read().tolist() == flat(nested)
    assert json.loads(rest, parse_constant=lambda _: "here") == {"name": "x", "data": "here", "more": [1]}


@given(st.integers(1, 40), NESTED)
def test_pieces_of_any_size_give_the_same(piece: int, nested: Nested) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_tensor, "PIECE", piece)
        assert read(json.dumps({"data": nested}).encode()) == flat(nested)


@given(st.text("[],0129 ", max_size=12), st.integers(1, 6))
def test_what_is_no_json_is_refused(inside: str, piece: int) -> None:
    """Whatever is accepted, the standard library accepts too, and reads the same."""
    text = f'{{"data":[{inside}]}}'.encode()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_tensor, "PIECE", piece)
            rest, arrays = cut(text)
            found = [array.read().tolist() for array in arrays]
        json.loads(rest, parse_constant=str)
    except (BadInput, ValueError):
        return
    assert [flat(json.loads(text)["data"])] == (found or [[]])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("[256]", "0 to 255"),
        ("[-1]", "0 to 255"),
        ("[" + "9" * 40 + "]", "0 to 255"),
        ("[" + "9" * 5000 + "]", "not valid"),
        ("[" + "9" * 1_000_000 + "]", "no number"),
        ("[1," + " " * 1_000_000 + "2]", "no number"),
        ("[1.5]", "whole"),
        ("[1e2]", "whole"),
        ("[1,true]", "whole"),
        ('[1,"2"]', "whole"),
        ("[1,,2]", "not valid"),
        ("[1,2,]", "not valid"),
        ("[1 2]", "not valid"),
        ("[[1][2]]", "not valid"),
        ("[1[,]2]", "not valid"),
        ("[01]", "not valid"),
        ("[" * 9 + "1" + "]" * 9, "nested"),
        ("[1,[2]", "no end"),
    ],
)
def test_what_is_refused_and_how(data: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read(f'{{"data":{data}}}'.encode())


@pytest.mark.parametrize(
    "text", [b'{"data":["a","b"]}', b'{"data":[{"a":1}]}', b'{"x":"\\"data\\":[1]"}', b'{"date":[1]}']
)
def test_what_is_none_of_its_business_stays(text: bytes) -> None:
    assert cut(text) == (text, [])


def test_too_many_arrays_are_refused() -> None:
    with pytest.raises(BadInput, match="more tensors"):
        cut(b"[" + b'{"data":[1]},' * 1000)


def test_an_empty_array_is_empty() -> None:
    assert read(b'{"data": [ ]}') == []


@given(st.lists(st.integers(0, 65535), max_size=50), st.integers(4, 40))
def test_written_numbers_are_json(values: list[int], piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_tensor, "PIECE", piece)
        assert json.loads(b"".join(write(np.array(values, np.uint16)))) == values


def test_an_array_alone_knows_its_bounds() -> None:
    assert JsonNumbers(b"xx[7,8]yy", 2, 7).read().tolist() == [7, 8]
