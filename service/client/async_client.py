"""The client for programs with an event loop: asyncio or trio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self, TypeVar

import anyio
import httpx

from service.client.api import Api
from service.client.call import Call, Pages, Request, Stream
from service.client.call_errors import transport_error
from service.client.http_options import DEFAULT_SERVER, TIMEOUT_S, http_options
from service.client.retries import Attempts, Retries

T = TypeVar("T")


class AsyncClient(Api):
    """As `Client`, with awaitable methods and asynchronous iterators. Use it in an `async with` block."""

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        retries: Retries | None = None,
    ) -> None:
        """Connect with the first call; the arguments are those of `Client`."""
        self.server = server
        self._http = httpx.AsyncClient(**http_options(server, key, timeout_s))
        self._retries = retries or Retries()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Send a call and return its answer."""
        return call.parse(await self._answer(call.request))

    async def stream(self, call: Stream[T]) -> AsyncIterator[T]:
        """Send a call and yield the lines of its answer."""
        response = await self._answer(call.request, stream=True)
        try:
            async for line in response.aiter_lines():
                if line:
                    yield call.parse_line(line)
        except httpx.TransportError as error:
            raise transport_error(error, self.server) from error
        finally:
            await response.aclose()

    async def entries(self, call: Pages[T]) -> AsyncIterator[T]:
        """Yield the entries of all pages; each page is asked for when it is needed."""
        cursor: str | None = None
        while True:
            entries, cursor = await self.send(call.page(cursor))
            for entry in entries:
                yield entry
            if cursor is None:
                return

    async def _answer(self, request: Request, *, stream: bool = False) -> httpx.Response:
        attempts = Attempts(request, self._retries, self.server)
        while True:
            try:
                with request.arguments() as arguments:
                    response = await self._http.send(self._http.build_request(**arguments), stream=stream)
                if not response.is_success:
                    await response.aread()
            except httpx.TransportError as error:
                pause_s = attempts.pause_after_error(error)
            else:
                pause = attempts.pause_after_answer(response)
                if pause is None:
                    return response
                pause_s = pause
            await anyio.sleep(pause_s)
