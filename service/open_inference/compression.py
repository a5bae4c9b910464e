"""Compression of request and response bodies: gzip and deflate."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from service.errors import BadInput, BodyTooLarge, EncodingUnsupported

Encoding = Literal["gzip", "deflate"]

# zlib's `wbits` by encoding. HTTP's `deflate` is the zlib format.
WBITS: dict[Encoding, int] = {"gzip": 31, "deflate": 15}
CHUNK_BYTES = 256 * 1024
LEVEL = 1


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a body by its `Content-Encoding` ("": none) to at most `limit` bytes.

    Raises EncodingUnsupported, BodyTooLarge, or BadInput if the body is damaged or truncated, or data follows it.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    known = _encoding(name)
    if known is None:
        raise EncodingUnsupported(f"Content-Encoding {name!r:.60} is not supported: send gzip, deflate or none.")
    try:
        return _inflate(body, WBITS[known], limit)
    except zlib.error as error:
        raise BadInput(
            f"The body is not valid {known} ({error}): compress it again, or send it uncompressed."
        ) from None


def accepted_encoding(header: str | None) -> Encoding | None:
    """Return the encoding for a response by `Accept-Encoding`.

    A list does not request compression: HTTP libraries send one by default, and would have to wait.
    """
    return _encoding((header or "").strip().lower())


def deflate(parts: Iterable[bytes | memoryview], encoding: Encoding) -> tuple[bytes, ...]:
    """Compress a body in parts, fast rather than small."""
    stream = zlib.compressobj(LEVEL, wbits=WBITS[encoding])
    return (*(stream.compress(part) for part in parts), stream.flush())


def _encoding(name: str) -> Encoding | None:
    return next((known for known in WBITS if known == name), None)


def _inflate(body: bytes, wbits: int, limit: int) -> bytes:
    stream, parts, size = zlib.decompressobj(wbits), [], 0
    for at in range(0, len(body), CHUNK_BYTES):
        if stream.eof:
            raise BadInput("Data follows the end of the compressed body: send a single stream.")
        for part in _parts(stream, body[at : at + CHUNK_BYTES]):
            size += len(part)
            if size > limit:
                raise BodyTooLarge(f"The decompressed body exceeds the limit of {limit} bytes: send less.")
            parts.append(part)
    if not stream.eof:
        raise BadInput("The compressed body is truncated: send all of it.")
    if stream.unused_data:
        raise BadInput("Data follows the end of the compressed body: send a single stream.")
    return b"".join(parts)


def _parts(stream: Any, data: bytes) -> Iterator[bytes]:
    full = True
    while not stream.eof and (data or full):
        part = stream.decompress(data, CHUNK_BYTES)
        yield part
        # After a full part, zlib may hold more output without more input.
        data, full = stream.unconsumed_tail, len(part) == CHUNK_BYTES
