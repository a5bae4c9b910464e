"""Tensors of datatype BYTES: length-prefixed elements in binary form, base64 strings in JSON."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence

from service.errors import BadInput

BASE64 = "base64"
LENGTH_PREFIX = struct.Struct("<I")


def unpack(data: memoryview, count: int) -> list[bytes]:
    """Split the binary form: each element is a 4-byte little-endian length and its bytes. Raises BadInput."""
    elements, at = [], 0
    for number in range(count):
        begin = at + LENGTH_PREFIX.size
        end = begin + LENGTH_PREFIX.unpack_from(data, at)[0] if begin <= len(data) else begin
        if end > len(data):
            raise BadInput(
                f"Element {number} of {count} exceeds the tensor by {end - len(data)} bytes: send each element as a "
                "4-byte little-endian length and its bytes."
            )
        elements.append(bytes(data[begin:end]))
        at = end
    if at < len(data):
        raise BadInput(
            f"The tensor has {len(data) - at} bytes after its {count} elements: send as many as `shape` says."
        )
    return elements


def pack(elements: Sequence[bytes]) -> bytes:
    """Join elements into the binary form."""
    return b"".join(part for element in elements for part in (LENGTH_PREFIX.pack(len(element)), element))


def from_base64(texts: list[object], content_type: object) -> list[bytes]:
    """Decode the elements of a JSON tensor. Raises BadInput for another encoding or `content_type`."""
    if content_type not in (None, BASE64):
        raise BadInput(f"`content_type` {content_type!r:.60} is unknown: send base64, or the tensor in binary form.")
    return [_decode(text, number) for number, text in enumerate(texts)]


def to_base64(elements: Sequence[bytes]) -> list[str]:
    """Encode elements for JSON."""
    return [base64.b64encode(element).decode() for element in elements]


def _decode(text: object, number: int) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise BadInput(f"Element {number} is not base64: send base64 strings in JSON, or the tensor in binary form.")
