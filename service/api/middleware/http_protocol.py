"""HTTP/1.1 as uvicorn speaks it, with an end to what a client may send that is no body, and to its time for an answer.

The parser keeps each line of a head, and of what may follow a chunked body, until it is complete, and knows no limit: a
client without a key could fill the memory by one endless header. And who asks for much and reads nothing would hold the
answer, and the place of a batch, for as long as it likes.
"""

from __future__ import annotations

import asyncio
import struct
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.state import State

log = structlog.stdlib.get_logger(__name__)

# About as much as other servers take. What one read from the socket brings is looked at as a whole.
MOST_HEAD_BYTES = 64 * 1024
MOST_FIELDS = 128
# Of an answer, in `send_timeout_s`: else one byte now and then would do.
LEAST_TAKEN_BYTES = 64 * 1024
LONGEST_PATH = 200
REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 57\r\nconnection: close\r\n\r\n"
    b"The head of the request is too large: send fewer headers."
)


class _HeadTooLarge(Exception):  # noqa: N818 - a signal to ourselves through the parser
    pass


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Bytes since the last of a body, or the last end of a head.
        self._bodiless = 0
        self._too_large = False
        state: State = self.app_state["maskloop"]
        self._send_timeout_s = state.settings.send_timeout_s
        self._patience: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Keep the answer back, as more of it waits than should, and look whether the client takes any."""
        super().pause_writing()
        self._be_patient()

    def resume_writing(self) -> None:
        """Go on with the answer."""
        self._forget_patience()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what goes on for this connection."""
        self._forget_patience()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and end a connection on which a head has no end."""
        self._bodiless += len(data)
        super().data_received(data)
        if self._bodiless > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head, or of what follows a body."""
        if len(self.headers) >= MOST_FIELDS:
            self._too_large = True
            raise _HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request."""
        self._bodiless = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body."""
        self._bodiless = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, or too large a head, and hang up."""
        if not self._too_large:
            super().send_400_response(msg)
            return
        self.transport.write(REFUSAL)
        self.transport.close()

    def _be_patient(self) -> None:
        self._patience = self.loop.call_later(self._send_timeout_s, self._look, self._waiting_bytes())

    def _forget_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _look(self, before: int) -> None:
        """End the connection if too little has gone since then: to uvicorn the client has left, and its work ends."""
        now = self._waiting_bytes()
        if before - now >= LEAST_TAKEN_BYTES:
            self._be_patient()
            return
        # As it came, with its percent signs: nothing in it ends the line.
        path = self.scope["raw_path"].decode("ascii", "replace")[:LONGEST_PATH]
        log.warning("answer not taken, connection ended", path=path, waiting_bytes=now, after_s=self._send_timeout_s)
        self.transport.abort()

    def _waiting_bytes(self) -> int:
        """Bytes of the answer that the client does not have yet."""
        return self.transport.get_write_buffer_size() + _unacknowledged_bytes(self.transport)


def _unacknowledged_bytes(transport: asyncio.Transport) -> int:
    """What the system holds of it: megabytes, of which it takes new ones only when a third has gone."""
    try:
        answer = ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
    except OSError:
        # Only Linux knows this of a socket.
        return 0
    return int(struct.unpack("i", answer)[0])
