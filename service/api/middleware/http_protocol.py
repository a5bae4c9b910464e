"""Limit the size of request headers, and the time that a client takes to read a response.

uvicorn's parser buffers header lines and trailers without a limit: one endless header could fill the memory. A client
that reads nothing could keep its response in memory and occupy one of the places for batch requests.
"""

from __future__ import annotations

import asyncio
import struct
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any

import structlog

from service.api.middleware.ignore_upgrade import UpgradeIgnoringProtocol
from service.state import State

log = structlog.stdlib.get_logger(__name__)

MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 128
# Minimum number of bytes of a response that a client must read in `send_timeout_s`.
MIN_READ_BYTES = 64 * 1024
MAX_LOGGED_PATH = 200
HEADERS_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 57\r\nconnection: close\r\n\r\n"
    b"The head of the request is too large: send fewer headers."
)


class _HeadersTooLarge(Exception):  # noqa: N818 - only unwinds the parser
    pass


class LimitedProtocol(UpgradeIgnoringProtocol):
    """uvicorn's HTTP/1.1 connection, with a limit on headers and on slow readers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Bytes received since the last body part or complete header block.
        self._header_bytes = 0
        self._too_large = False
        state: State = self.app_state["maskloop"]
        self._send_timeout_s = state.settings.send_timeout_s
        self._send_timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Pause the response, and start the timer."""
        super().pause_writing()
        self._start_timer()

    def resume_writing(self) -> None:
        """Continue the response."""
        self._cancel_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer."""
        self._cancel_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes; close the connection if the headers are too large."""
        self._header_bytes += len(data)
        super().data_received(data)
        if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header or trailer."""
        if len(self.headers) >= MAX_HEADERS:
            self._too_large = True
            raise _HeadersTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._header_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self._header_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer 431 if the headers are too large, otherwise 400, and close the connection."""
        if not self._too_large:
            super().send_400_response(msg)
            return
        self.transport.write(HEADERS_TOO_LARGE)
        self.transport.close()

    def _start_timer(self) -> None:
        self._send_timer = self.loop.call_later(self._send_timeout_s, self._check_progress, self._unread_bytes())

    def _cancel_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _check_progress(self, before: int) -> None:
        """Abort the connection if the client read too little; uvicorn then cancels the request."""
        now = self._unread_bytes()
        if before - now >= MIN_READ_BYTES:
            self._start_timer()
            return
        self.transport.abort()
        # Of the last complete request: `self.scope` may be a pipelined one that has no path yet. `raw_path` is
        # percent-encoded, so it cannot break the log's line.
        path = self.cycle.scope["raw_path"].decode("ascii", "replace")[:MAX_LOGGED_PATH]
        log.warning("response not read, connection closed", path=path, unread_bytes=now, after_s=self._send_timeout_s)

    def _unread_bytes(self) -> int:
        return self.transport.get_write_buffer_size() + _unacknowledged_bytes(self.transport)


def _unacknowledged_bytes(transport: asyncio.Transport) -> int:
    """Bytes in the socket's send buffer: up to megabytes, refilled only after a third of them was sent."""
    try:
        answer = ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
    except OSError:
        # Only Linux supports this.
        return 0
    return int(struct.unpack("i", answer)[0])
