"""Ignore the header `Upgrade`, as RFC 9110, section 7.8 allows: the service speaks HTTP/1.1 only.

`curl --http2` and Java's HttpClient offer HTTP/2 (`Upgrade: h2c`) with every request. httptools takes the body of such
a request for the other protocol: uvicorn would pass on an empty body, parse the rest of it as a new request, and advise
to install a WebSocket library. Here, the head is parsed again without the header; then the body follows it as usual.
"""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class UpgradeIgnoringProtocol(HttpToolsProtocol):
    """A connection that stays HTTP/1.1."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)
        self._head = b""

    def on_headers_complete(self) -> None:
        """Start the request, unless its head must be parsed again."""
        if self.parser.should_upgrade():
            self._head = self._head_without_upgrade()
        if not self._head:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request."""
        if not self._head:
            super().on_message_complete()

    def take_head(self) -> bytes:
        """Return the head to parse again, once; empty: none."""
        head, self._head = self._head, b""
        return head

    def _head_without_upgrade(self) -> bytes:
        kept = [(name, value) for name, value in self.headers if name != b"upgrade"]
        if len(kept) == len(self.headers):
            # CONNECT switches the protocol without the header; it is answered with 405.
            return b""
        first = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        return b"\r\n".join([first, *(b"%s: %s" % field for field in kept), b"", b""])


class _Parser(httptools.HttpRequestParser):
    """Continues with HTTP/1.1 where httptools would leave the connection to another protocol."""

    def __init__(self, protocol: UpgradeIgnoringProtocol) -> None:
        super().__init__(protocol)
        # As uvicorn sets it.
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:
        parser = self
        while data:
            try:
                super(_Parser, parser).feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # What follows the head is the body, or the next request.
                data = self._protocol.take_head() + data[upgrade.args[0] :]
                # Another parser: this one reads nothing after a head with `Connection: close`, or of HTTP/1.0.
                parser = self._protocol.parser = _Parser(self._protocol)
            else:
                return
