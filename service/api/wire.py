"""HTTP/1.1 as uvicorn speaks it, with an end to what a client may send that is no body.

The parser keeps each line of a head, and of what may follow a chunked body, until it is complete, and knows no limit: a
client without a key could fill the memory by one endless header.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# About as much as other servers take. What one read from the socket brings is looked at as a whole.
MOST_HEAD_BYTES = 64 * 1024
MOST_FIELDS = 128
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
