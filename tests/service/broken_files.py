"""Small image files of every format, and Hypothesis strategies that damage them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.service.conftest import encoded
from tests.service.tiny_bundle import picture

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
    "16-bit grey PNG": encoded(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), "PNG"),
    "WEBP": encoded(IMAGE, "WEBP", exif=EXIF),
    "lossless WEBP": encoded(IMAGE.convert("RGBA"), "WEBP", lossless=True),
    "BMP": encoded(IMAGE, "BMP"),
    "palette BMP": encoded(IMAGE.quantize(16), "BMP"),
    "TIFF": encoded(IMAGE, "TIFF", exif=EXIF),
    "LZW TIFF": encoded(IMAGE, "TIFF", compression="tiff_lzw"),
    "JPEG TIFF": encoded(IMAGE, "TIFF", compression="jpeg"),
    "float TIFF": encoded(IMAGE.convert("F"), "TIFF"),
    "AVIF": encoded(IMAGE, "AVIF", exif=EXIF),
    "transparent AVIF": encoded(IMAGE.convert("RGBA"), "AVIF"),
}
JPEG_BEGIN, PNG_BEGIN = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# Signature and the chunk IHDR.
PNG_HEAD = len(PNG_BEGIN) + 25
TIFF_HEADS = [b"", b"II*\x00\x08\x00\x00\x00", b"MM\x00*\x00\x00\x00\x08", b"II*\x00\xff\xff\xff\xff"]
# Boundary values of header fields.
EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
ORDERS: list[Literal["little", "big"]] = ["little", "big"]


def flip_bits(draw: st.DrawFn, data: bytes) -> bytes:
    broken = bytearray(data)
    for at in draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=8)):
        broken[at] ^= draw(st.integers(1, 255))
    return bytes(broken)


def truncate(draw: st.DrawFn, data: bytes) -> bytes:
    return data[: draw(st.integers(0, len(data)))]


def insert_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(min_size=1, max_size=64)) + data[at:]


def remove_range(draw: st.DrawFn, data: bytes) -> bytes:
    begin, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
    return data[:begin] + data[end:]


def repeat_range(draw: st.DrawFn, data: bytes) -> bytes:
    begin, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
    return data[:end] + data[begin:]


def overwrite_field(draw: st.DrawFn, data: bytes) -> bytes:
    """Overwrite 1, 2 or 4 bytes of the header with a boundary value, in either byte order."""
    size = draw(st.sampled_from([1, 2, 4]))
    value = draw(st.sampled_from(EDGES)) & (256**size - 1)
    number: bytes = value.to_bytes(size, draw(st.sampled_from(ORDERS)))
    at = draw(st.integers(0, max(0, min(400, len(data) - size))))
    return data[:at] + number + data[at + size :]


def splice(draw: st.DrawFn, data: bytes) -> bytes:
    """Join the head of the file with the tail of another format."""
    other = FILES[draw(st.sampled_from(sorted(FILES)))]
    return data[: draw(st.integers(1, len(data)))] + other[draw(st.integers(0, len(other))) :]


def swap_fields(draw: st.DrawFn, data: bytes) -> bytes:
    """Swap two fields of the header, for example a length and an offset."""
    size = draw(st.sampled_from([2, 4]))
    positions = st.integers(0, max(0, min(400, len(data) - size)))
    first, second = draw(st.tuples(positions, positions))
    swapped = bytearray(data)
    swapped[first : first + size], swapped[second : second + size] = (
        data[second : second + size],
        data[first : first + size],
    )
    return bytes(swapped)


def add_exif(draw: st.DrawFn, data: bytes) -> bytes:
    """Insert random EXIF data with a valid header, at its place in JPEG and PNG."""
    exif = draw(st.sampled_from(TIFF_HEADS)) + draw(st.binary(max_size=200))
    if data.startswith(JPEG_BEGIN):
        segment = b"Exif\x00\x00" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    if data.startswith(PNG_BEGIN):
        return data[:PNG_HEAD] + _chunk(b"eXIf", exif) + data[PNG_HEAD:]
    return data + exif


def repair_checksums(_draw: st.DrawFn, data: bytes) -> bytes:
    """Correct the checksums of a PNG, so that readers parse the damaged chunks."""
    at, repaired = len(PNG_BEGIN), data[: len(PNG_BEGIN)]
    while data.startswith(PNG_BEGIN) and at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        repaired += _chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return repaired + data[at:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


Damage = Callable[[st.DrawFn, bytes], bytes]
DAMAGES: list[Damage] = [flip_bits, truncate, insert_bytes, remove_range, repeat_range, overwrite_field, splice]
DAMAGES += [swap_fields, add_exif, repair_checksums]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Damage a file in one to three ways."""
    for damage in draw(st.lists(st.sampled_from(DAMAGES), min_size=1, max_size=3)):
        data = damage(draw, data) or b"x"
    return data
