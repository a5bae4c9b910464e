"""The client for programs without an event loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Self, TypeVar

import httpx

from service.client.api import Api
from service.client.call import Call, Pages, Request, Stream
from service.client.call_errors import transport_error
from service.client.http_options import DEFAULT_SERVER, TIMEOUT_S, http_options
from service.client.retries import Attempts, Retries

T = TypeVar("T")


class Client(Api):
    """Calls a service. Use it in a `with` block, or call `close`. Threads may share it.

    Every method raises CallError (`service.client.call_errors`), and OSError for a file that cannot be read.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        retries: Retries | None = None,
    ) -> None:
        """Connect with the first call.

        Args:
            server: Address, such as `https://maskloop.example.com`.
            key: API key; None: none is sent.
            timeout_s: Longest time without a byte from the service.
            retries: How often a call is repeated that the service or the network refused.
        """
        self.server = server
        self._http = httpx.Client(**http_options(server, key, timeout_s))
        self._retries = retries or Retries()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """Send a call and return its answer."""
        return call.parse(self._answer(call.request))

    def stream(self, call: Stream[T]) -> Iterator[T]:
        """Send a call and yield the lines of its answer."""
        response = self._answer(call.request, stream=True)
        try:
            yield from (call.parse_line(line) for line in response.iter_lines() if line)
        except httpx.TransportError as error:
            raise transport_error(error, self.server) from error
        finally:
            response.close()

    def entries(self, call: Pages[T]) -> Iterator[T]:
        """Yield the entries of all pages; each page is asked for when it is needed."""
        cursor: str | None = None
        while True:
            entries, cursor = self.send(call.page(cursor))
            yield from entries
            if cursor is None:
                return

    def _answer(self, request: Request, *, stream: bool = False) -> httpx.Response:
        attempts = Attempts(request, self._retries, self.server)
        while True:
            try:
                with request.arguments() as arguments:
                    response = self._http.send(self._http.build_request(**arguments), stream=stream)
                if not response.is_success:
                    response.read()
            except httpx.TransportError as error:
                pause_s = attempts.pause_after_error(error)
            else:
                pause = attempts.pause_after_answer(response)
                if pause is None:
                    return response
                pause_s = pause
            time.sleep(pause_s)
