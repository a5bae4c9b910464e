"""HTTP/1.1 client on keep-alive connections, with httptools as the parser."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import httptools

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def png(self) -> bytes:
        """The body without the JSON and the length that Triton puts before a tensor."""
        json_bytes = self.headers.get("inference-header-content-length")
        return self.body if json_bytes is None else self.body[int(json_bytes) + 4 :]


def request_head(path: str, headers: dict[str, str], length: int) -> bytes:
    """Return the head of a POST request, including the empty line."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def png_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a complete PNG file; None for anything else."""
    if not data.startswith(PNG_SIGNATURE) or data[12:16] != b"IHDR" or data[-8:-4] != b"IEND":
        return None
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


class Connection(asyncio.Protocol):
    """A connection for one request at a time. The methods `on_*` are httptools' callbacks."""

    def __init__(self) -> None:
        self._response: asyncio.Future[Response] | None = None
        self._transport: asyncio.Transport | None = None
        self.on_message_begin()
        self._parser = httptools.HttpResponseParser(self)

    async def request(self, parts: Sequence[bytes]) -> Response:
        """Send a request and return the response.

        Raises:
            ConnectionError: The server closed the connection, or sent something that is not HTTP.
        """
        if self._transport is None:
            raise ConnectionResetError("the server closed the connection")
        self._response = asyncio.get_running_loop().create_future()
        self._transport.writelines(parts)
        return await self._response

    @property
    def is_usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """See asyncio.Protocol."""
        self._transport = None
        if self._response is not None and not self._response.done():
            self._response.set_exception(ConnectionResetError("the server closed the connection"))

    def on_message_begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self._response is not None and not self._response.done():
            self._response.set_result(Response(self._parser.get_status_code(), self._headers, bytes(self._body)))


class Pool:
    """Connections to a port of this machine. The most recently used idle one is reused first."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def request(self, parts: Sequence[bytes]) -> Response:
        """Send a request on a free connection; cancelling closes the connection.

        Raises:
            ConnectionError: As Connection.request, or the server does not accept connections.
        """
        connection = await self._take()
        try:
            response = await connection.request(parts)
        except BaseException:
            connection.close()
            raise
        if connection.is_usable:
            self._idle.append(connection)
        return response

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
        return connection

    def close(self) -> None:
        """Close all idle connections."""
        for connection in self._idle:
            connection.close()
