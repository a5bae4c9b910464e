"""Keep-alive connections to one server, as many as there are requests at one time."""

import asyncio
from collections.abc import Sequence
from typing import cast

from tests.benchmarks.serving.http1 import NotHttp, Response, ResponseParser


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self._parser = ResponseParser()
        self._answer: asyncio.Future[Response] | None = None
        self._transport: asyncio.Transport | None = None

    async def ask(self, pieces: Sequence[bytes]) -> Response:
        """Send a request and wait for its answer.

        Raises:
            ConnectionError: The server hung up before the answer was whole.
            NotHttp: The answer is none.
        """
        if self._transport is None:
            raise ConnectionResetError("the server hung up")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines(pieces)
        return await self._answer

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Hang up at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            response = self._parser.feed(data)
        except NotHttp as error:
            self._settle(error)
            self.close()
            return
        if response is not None:
            if response.headers.get("connection", "").lower() == "close":
                self.close()
            self._settle(response)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """See asyncio.Protocol."""
        self._transport = None
        self._settle(self._parser.end() or ConnectionResetError("the server hung up"))

    def _settle(self, outcome: Response | Exception) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return
        if isinstance(outcome, Response):
            answer.set_result(outcome)
        else:
            answer.set_exception(outcome)


class Pool:
    """Connections to a port of this machine: idle ones are used again, the one that was used last first."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def ask(self, pieces: Sequence[bytes]) -> Response:
        """Send a request on a connection of its own; hang up where it is cancelled.

        Raises:
            ConnectionError: As Connection.ask, or there is no server.
            NotHttp: The answer is none.
        """
        connection = await self._take()
        try:
            response = await connection.ask(pieces)
        except BaseException:
            connection.close()
            raise
        if connection.usable:
            self._idle.append(connection)
        return response

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
        return connection

    def close(self) -> None:
        """Hang up on all that are idle."""
        for connection in self._idle:
            connection.close()
