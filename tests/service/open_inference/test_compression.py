"""Compression of responses."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.open_inference.compression import accepted_encoding, deflate


@pytest.mark.parametrize(
    ("header", "encoding"),
    [("gzip", "gzip"), (" Deflate", "deflate"), ("gzip, deflate, br", None), ("*", None), ("", None), (None, None)],
)
def test_only_a_single_accepted_encoding_counts(header: str | None, encoding: str | None) -> None:
    assert accepted_encoding(header) == encoding


@given(st.binary(max_size=300))
def test_standard_library_decompresses_responses(plain: bytes) -> None:
    parts = (plain[:100], memoryview(plain)[100:])
    assert gzip.decompress(b"".join(deflate(parts, "gzip"))) == plain
    assert zlib.decompress(b"".join(deflate(parts, "deflate"))) == plain
