"""Compressed bodies. What comes in is unpacked up to a limit: a few kilobytes may hold gigabytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from service.errors import BadInput, BodyTooLarge, EncodingUnsupported

Encoding = Literal["gzip", "deflate"]
ENCODINGS: dict[str, Encoding] = {"gzip": "gzip", "deflate": "deflate"}

# The containers, in zlib's words. HTTP's `deflate` means zlib's own.
CONTAINERS: dict[str, int] = {"gzip": 31, "deflate": 15}
STEP = 256 * 1024
LEVEL = 1


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Unpack a body.

    Args:
        body: As it came.
        encoding: The header `Content-Encoding`, or nothing.
        limit: Most bytes of what is in it.

    Raises:
        EncodingUnsupported: Neither gzip nor deflate.
        BodyTooLarge: There is more in it.
        BadInput: Damaged, incomplete, or with something behind it.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in CONTAINERS:
        raise EncodingUnsupported(f"Content-Encoding {encoding!r:.60} is not taken: send gzip, deflate or none.")
    try:
        return _inflate(body, CONTAINERS[encoding], limit)
    except zlib.error as error:
        raise BadInput(f"The body is no {encoding} ({error}): compress it again, or send it as it is.") from None


def accepted(header: str | None) -> Encoding | None:
    """What an answer may be packed in, by `Accept-Encoding`: one word means it, a list of many only allows it."""
    return ENCODINGS.get((header or "").strip().lower())


def deflate(parts: Iterable[bytes | memoryview], encoding: Encoding) -> tuple[bytes, ...]:
    """Pack a body, fast rather than small, into parts again."""
    stream = zlib.compressobj(LEVEL, wbits=CONTAINERS[encoding])
    return (*(stream.compress(part) for part in parts), stream.flush())


def _inflate(body: bytes, container: int, limit: int) -> bytes:
    stream, parts, size = zlib.decompressobj(container), [], 0
    for at in range(0, len(body), STEP):
        if stream.eof:
            raise BadInput("There is something behind the end of the compressed body: send one stream alone.")
        for part in _parts(stream, body[at : at + STEP]):
            size += len(part)
            if size > limit:
                raise BodyTooLarge(f"There are more than the {limit} bytes allowed in the compressed body: send less.")
            parts.append(part)
    if not stream.eof:
        raise BadInput("The compressed body is incomplete: send all of it.")
    if stream.unused_data:
        raise BadInput("There is something behind the end of the compressed body: send one stream alone.")
    return b"".join(parts)


def _parts(stream: Any, rest: bytes) -> Iterator[bytes]:
    """What some input becomes, in parts of at most `STEP`."""
    full = True
    while not stream.eof and (rest or full):
        part = stream.decompress(rest, STEP)
        yield part
        # A full part may leave some for the next, even of input that is used up.
        rest, full = stream.unconsumed_tail, len(part) == STEP
