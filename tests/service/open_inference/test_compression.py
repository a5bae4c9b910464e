"""Decompression of bodies up to a limit, and compression of responses."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadInput, BodyTooLarge, EncodingUnsupported
from service.open_inference import compression
from service.open_inference.compression import accepted_encoding, deflate, inflate

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(plain=st.binary(max_size=300) | st.integers(0, 5000).map(bytes), chunk=st.integers(1, 64))
def test_inflate_restores_the_body_up_to_the_limit(encoding: str, plain: bytes, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "CHUNK_BYTES", chunk)
        assert inflate(COMPRESS[encoding](plain), encoding, len(plain)) == plain
        if plain:
            with pytest.raises(BodyTooLarge):
                inflate(COMPRESS[encoding](plain), encoding, len(plain) - 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(plain=st.binary(max_size=200), at=st.integers(0, 500), junk=st.binary(min_size=1, max_size=5))
def test_truncated_body_and_trailing_data_are_rejected(encoding: str, plain: bytes, at: int, junk: bytes) -> None:
    compressed = COMPRESS[encoding](plain)
    with pytest.raises(BadInput):
        inflate(compressed[: at % len(compressed)], encoding, 10_000)
    with pytest.raises(BadInput, match="follows the end"):
        inflate(compressed + junk, encoding, 10_000)


@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate"]))
def test_random_bytes_raise_only_bad_input(body: bytes, encoding: str) -> None:
    with suppress(BadInput):
        inflate(body, encoding, 100)


def test_decompression_bomb_is_rejected_with_little_memory() -> None:
    bomb = gzip.compress(bytes(20_000_000), 1)
    tracemalloc.start()
    with pytest.raises(BodyTooLarge, match="100000 bytes"):
        inflate(bomb, "gzip", 100_000)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 200])
def test_unsupported_encoding_is_rejected(encoding: str) -> None:
    with pytest.raises(EncodingUnsupported, match="gzip, deflate or none"):
        inflate(b"x", encoding, 10)


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_identity_encoding_returns_the_body(encoding: str) -> None:
    assert inflate(b"x", encoding, 10) == b"x"


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
