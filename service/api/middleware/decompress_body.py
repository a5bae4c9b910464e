"""Decompress request bodies by their `Content-Encoding`: gzip or deflate.

The limit of `BodyLimit`, which is the next inner middleware, applies to the decompressed bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BadInput, EncodingUnsupported

# zlib's `wbits` by encoding. HTTP's `deflate` is the zlib format; RFC 9110 makes `x-gzip` equal to `gzip`.
WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# Deflate without the zlib format, as .NET's DeflateStream writes it; the lower half of zlib's first byte is its method.
RAW_WBITS, ZLIB_METHOD = -15, 8
CHUNK_BYTES = 256 * 1024
# RFC 1952: a gzip body is one or more members. Each costs a copy of the piece that it is in.
GZIP_START, MAX_MEMBERS = 0x1F, 10_000


def decompress_body(app: ASGIApp) -> ASGIApp:
    """ASGI middleware: pass decompressed bodies on, in parts of at most `CHUNK_BYTES`."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        encoding = _encoding(scope) if scope["type"] == "http" else ""
        if not encoding:
            await app(scope, receive, send)
        else:
            await app(scope, _Decompressed(receive, encoding), send)

    return handle


def _encoding(scope: Scope) -> str:
    """The encodings of a body, without those that change nothing."""
    listed = ",".join(Headers(scope=scope).getlist("content-encoding")).lower().split(",")
    return ", ".join(name for each in listed if (name := each.strip()) not in ("", "identity"))


class Decompressor:
    """Decompresses one stream, piece by piece."""

    def __init__(self, encoding: str) -> None:
        """Raises EncodingUnsupported."""
        if encoding not in WBITS:
            raise EncodingUnsupported(
                f"Content-Encoding {encoding!r:.60} is not supported: send gzip, deflate or none."
            )
        self._encoding = encoding
        self._stream: Any = None
        self._members = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what a piece of the body holds, in parts of at most `CHUNK_BYTES`. Raises BadInput."""
        full = True
        while data or (full and self._stream and not self._stream.eof):
            if self._stream is None or self._stream.eof:
                self._start(data[0])
            try:
                part = self._stream.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                raise BadInput(
                    f"The body is not valid {self._encoding} ({error}): compress it again, or omit Content-Encoding."
                ) from None
            if part:
                yield part
            # After a full part, zlib may hold more output even if it has consumed all input.
            data, full = self._stream.unconsumed_tail or self._stream.unused_data, len(part) == CHUNK_BYTES

    def finish(self) -> None:
        """Check that the stream is complete; an empty body is an empty one. Raises BadInput."""
        if self._stream and not self._stream.eof:
            raise BadInput("The compressed body is truncated: send all of it.")

    def _start(self, first: int) -> None:
        """Start a stream by its first byte: that of the body, or a further member of gzip."""
        is_gzip = self._encoding != "deflate"
        if self._stream and not (is_gzip and first == GZIP_START):
            raise BadInput("Data follows the end of the compressed body: send a single stream.")
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise BadInput(f"The body has more than {MAX_MEMBERS} gzip members: compress it as one.")
        is_raw = not is_gzip and first % 16 != ZLIB_METHOD
        self._stream = zlib.decompressobj(RAW_WBITS if is_raw else WBITS[self._encoding])


class _Decompressed:
    """The `receive` of a request with a compressed body."""

    def __init__(self, receive: Receive, encoding: str) -> None:
        self._receive = receive
        self._encoding = encoding
        self._decompressor: Decompressor | None = None
        self._parts: Iterator[bytes] = iter(())
        self._is_last = self._is_complete = False

    async def __call__(self) -> Message:
        if self._decompressor is None:
            # Only now: most errors of a request without a body matter more.
            self._decompressor = Decompressor(self._encoding)
        while not self._is_complete:
            # In a thread: a part takes a millisecond.
            if part := await run_in_threadpool(next, self._parts, None):
                return {"type": "http.request", "body": part, "more_body": True}
            if self._is_last:
                self._decompressor.finish()
                self._is_complete = True
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._parts = self._decompressor.feed(message.get("body", b""))
            self._is_last = not message.get("more_body", False)
        return await self._receive()
