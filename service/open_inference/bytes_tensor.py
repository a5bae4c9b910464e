"""Elements of BYTES: behind their lengths in binary form, and as base64 in JSON, since no picture is UTF-8 text."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence

from service.errors import BadInput

BASE64 = "base64"
LENGTH = struct.Struct("<I")


def unpack(data: memoryview, count: int) -> list[bytes]:
    """Elements of the binary form: each a length of four bytes, little end first, and so many bytes.

    Raises:
        BadInput: Not exactly so many of them.
    """
    elements, at = [], 0
    for number in range(count):
        begin = at + LENGTH.size
        end = begin + LENGTH.unpack_from(data, at)[0] if begin <= len(data) else begin
        if end > len(data):
            raise BadInput(
                f"Element {number} of {count} ends {end - len(data)} bytes behind the tensor: in binary form, each has "
                "its length in front, as four bytes with the little end first."
            )
        elements.append(bytes(data[begin:end]))
        at = end
    if at < len(data):
        raise BadInput(f"The shape has {count} elements, and {len(data) - at} bytes come behind them.")
    return elements


def pack(elements: Sequence[bytes]) -> bytes:
    """The binary form."""
    return b"".join(part for element in elements for part in (LENGTH.pack(len(element)), element))


def from_text(texts: list[object], content_type: object) -> list[bytes]:
    """Elements out of JSON.

    Args:
        texts: The strings.
        content_type: The parameter of the input by which some clients say how the strings are to be read.

    Raises:
        BadInput: Not base64.
    """
    if content_type not in (None, BASE64):
        raise BadInput(f"`content_type` {content_type!r:.60} is not known: send base64, or the tensor in binary form.")
    return [_from_text(text, number) for number, text in enumerate(texts)]


def to_text(elements: Sequence[bytes]) -> list[str]:
    """Elements for JSON."""
    return [base64.b64encode(element).decode() for element in elements]


def _from_text(text: object, number: int) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise BadInput(
        f"Element {number} is no base64: in JSON, bytes are strings of base64; in binary form they are as they are."
    )
