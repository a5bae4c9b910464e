"""Compression of responses: gzip and deflate. `service/api/middleware` decompresses requests."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Literal

Encoding = Literal["gzip", "deflate"]

# zlib's `wbits` by encoding. HTTP's `deflate` is the zlib format.
WBITS: dict[Encoding, int] = {"gzip": 31, "deflate": 15}
LEVEL = 1


def accepted_encoding(header: str | None) -> Encoding | None:
    """Return the encoding for a response by `Accept-Encoding`.

    A list does not request compression: HTTP libraries send one by default, and would have to wait.
    """
    name = (header or "").strip().lower()
    return next((known for known in WBITS if known == name), None)


def deflate(parts: Iterable[bytes | memoryview], encoding: Encoding) -> tuple[bytes, ...]:
    """Compress a body in parts, fast rather than small."""
    stream = zlib.compressobj(LEVEL, wbits=WBITS[encoding])
    return (*(stream.compress(part) for part in parts), stream.flush())
