"""Packed bodies: every one that Python packs is unpacked, none beyond the limit."""

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
from service.open_inference.compression import accepted, deflate, inflate

PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(plain=st.binary(max_size=300) | st.integers(0, 5000).map(bytes), step=st.integers(1, 64))
def test_what_was_packed_is_unpacked_up_to_the_limit(encoding: str, plain: bytes, step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "STEP", step)
        assert inflate(PACK[encoding](plain), encoding, len(plain)) == plain
        if plain:
            with pytest.raises(BodyTooLarge):
                inflate(PACK[encoding](plain), encoding, len(plain) - 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(plain=st.binary(max_size=200), at=st.integers(0, 500), junk=st.binary(min_size=1, max_size=5))
def test_what_is_cut_off_or_goes_on_is_refused(encoding: str, plain: bytes, at: int, junk: bytes) -> None:
    packed = PACK[encoding](plain)
    with pytest.raises(BadInput):
        inflate(packed[: at % len(packed)], encoding, 10_000)
    with pytest.raises(BadInput, match="behind the end"):
        inflate(packed + junk, encoding, 10_000)


@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate"]))
def test_nonsense_is_refused(body: bytes, encoding: str) -> None:
    with suppress(BadInput):
        inflate(body, encoding, 100)


def test_a_bomb_is_stopped_while_it_is_small() -> None:
    bomb = gzip.compress(bytes(20_000_000), 1)
    tracemalloc.start()
    with pytest.raises(BodyTooLarge, match="100000 bytes"):
        inflate(bomb, "gzip", 100_000)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 200])
def test_other_encodings_are_named(encoding: str) -> None:
    with pytest.raises(EncodingUnsupported, match="gzip, deflate or none"):
        inflate(b"x", encoding, 10)


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_no_encoding_is_none(encoding: str) -> None:
    assert inflate(b"x", encoding, 10) == b"x"


@pytest.mark.parametrize(
    ("header", "encoding"),
    [("gzip", "gzip"), (" Deflate", "deflate"), ("gzip, deflate, br", None), ("*", None), ("", None), (None, None)],
)
def test_one_word_asks_for_a_packed_answer(header: str | None, encoding: str | None) -> None:
    assert accepted(header) == encoding


@given(st.binary(max_size=300))
def test_answers_are_what_every_client_unpacks(plain: bytes) -> None:
    parts = (plain[:100], memoryview(plain)[100:])
    assert gzip.decompress(b"".join(deflate(parts, "gzip"))) == plain
    assert zlib.decompress(b"".join(deflate(parts, "deflate"))) == plain
