"""Files that are broken, cut, grown or lying about themselves: refused or read, and never anything else."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import ImageTooLarge, ImageUnreadable, ImageUnsupported
from service.segmentation.decode import Limits, decode, inspect
from tests.service.conftest import encoded
from tests.service.fuzzing import examples
from tests.service.tiny_bundle import picture

pytestmark = [
    # Pillow warns of what it finds odd: of sizes, of EXIF, of cut TIFFs.
    pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:PIL"),
]

LIMITS = Limits(max_bytes=100_000, max_pixels=1_000_000)
# Of one file, however broken. They take milliseconds; a slow machine is no failure, and a file without end is.
TIME_LIMIT_S = 5
IMAGE = Image.fromarray(picture(40, 30))
EXIF = Image.Exif()
EXIF[0x0112] = 6

FILES: dict[str, bytes] = {
    "JPEG": encoded(IMAGE, "JPEG", exif=EXIF),
    "progressive JPEG": encoded(IMAGE, "JPEG", progressive=True),
    "CMYK JPEG": encoded(IMAGE.convert("CMYK"), "JPEG"),
    "MPO": encoded(IMAGE, "MPO", save_all=True, append_images=[IMAGE]),
    "PNG": encoded(IMAGE, "PNG", exif=EXIF),
    "palette PNG": encoded(IMAGE.quantize(16), "PNG", transparency=bytes(8)),
    "grey PNG of 16 bits": encoded(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), "PNG"),
    "WEBP": encoded(IMAGE, "WEBP", exif=EXIF),
    "lossless WEBP": encoded(IMAGE.convert("RGBA"), "WEBP", lossless=True),
    "BMP": encoded(IMAGE, "BMP"),
    "palette BMP": encoded(IMAGE.quantize(16), "BMP"),
    "TIFF": encoded(IMAGE, "TIFF", exif=EXIF),
    "LZW TIFF": encoded(IMAGE, "TIFF", compression="tiff_lzw"),
    "JPEG TIFF": encoded(IMAGE, "TIFF", compression="jpeg"),
    "floats TIFF": encoded(IMAGE.convert("F"), "TIFF"),
    "AVIF": encoded(IMAGE, "AVIF", exif=EXIF),
    "clear AVIF": encoded(IMAGE.convert("RGBA"), "AVIF"),
}
# Numbers that headers are afraid of.
EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
ORDERS: list[Literal["little", "big"]] = ["little", "big"]


def read(data: bytes) -> None:
    """Header and pixels come, or one of the three refusals."""
    begin = time.monotonic()
    for reader in (inspect, decode):
        try:
            found = reader(data, LIMITS)
        except (ImageUnreadable, ImageUnsupported, ImageTooLarge):
            continue
        if isinstance(found, np.ndarray):
            assert found.dtype == np.uint8
            assert found.shape[2:] == (3,)
    assert time.monotonic() - begin < TIME_LIMIT_S


def flipped(draw: st.DrawFn, data: bytes) -> bytes:
    broken = bytearray(data)
    for at in draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=8)):
        broken[at] ^= draw(st.integers(1, 255))
    return bytes(broken)


def cut(draw: st.DrawFn, data: bytes) -> bytes:
    return data[: draw(st.integers(0, len(data)))]


def grown(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(min_size=1, max_size=64)) + data[at:]


def left_out(draw: st.DrawFn, data: bytes) -> bytes:
    begin, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
    return data[:begin] + data[end:]


def repeated(draw: st.DrawFn, data: bytes) -> bytes:
    begin, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
    return data[:end] + data[begin:]


def with_a_field(draw: st.DrawFn, data: bytes) -> bytes:
    """A number in the header, of 1, 2 or 4 bytes and either order, becomes one that is awkward."""
    width = draw(st.sampled_from([1, 2, 4]))
    value = draw(st.sampled_from(EDGES)) & (256**width - 1)
    number: bytes = value.to_bytes(width, draw(st.sampled_from(ORDERS)))
    at = draw(st.integers(0, max(0, min(400, len(data) - width))))
    return data[:at] + number + data[at + width :]


def joined(draw: st.DrawFn, data: bytes) -> bytes:
    """The head of one format with the tail of another."""
    other = FILES[draw(st.sampled_from(sorted(FILES)))]
    return data[: draw(st.integers(1, len(data)))] + other[draw(st.integers(0, len(other))) :]


Damage = Callable[[st.DrawFn, bytes], bytes]
DAMAGES: list[Damage] = [flipped, cut, grown, left_out, repeated, with_a_field, joined]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    for damage in draw(st.lists(st.sampled_from(DAMAGES), min_size=1, max_size=3)):
        data = damage(draw, data) or b"x"
    return data


@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused_or_read(name: str) -> None:
    @given(damaged(FILES[name]))
    @settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
    def try_one(data: bytes) -> None:
        read(data)

    try_one()


@pytest.mark.parametrize("name", FILES)
def test_every_awkward_number_in_every_place_of_the_header(name: str) -> None:
    data = FILES[name]
    for at in range(0, min(120, len(data) - 4), 2):
        for value in (0, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF):
            for order in ORDERS:
                width = 2 if value == 0xFFFF else 4
                number = value.to_bytes(width, order)
                read(data[:at] + number + data[at + width :])


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_in_its_head(name: str) -> None:
    data = FILES[name]
    for begin, end in pairwise(range(0, min(len(data), 400), 7)):
        read(data[:begin])
        read(data[:begin] + data[end:])


@given(st.sampled_from([data[:16] for data in FILES.values()]), st.binary(max_size=200))
@settings(max_examples=examples(300), deadline=None)
def test_a_true_beginning_with_anything_behind_it(head: bytes, tail: bytes) -> None:
    read(head + tail)
