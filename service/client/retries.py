"""When a request is sent again, and after which pause."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from service.client.call import Request
from service.client.call_errors import error_of, problem_of, transport_error

# Nothing was sent.
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
TOO_MANY_REQUESTS, UNAVAILABLE = 429, 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often and how long to try."""

    attempts: int = 5
    """Most times that a request is sent; 1: no repetition."""
    first_pause_s: float = 0.25
    """Longest pause before the first repetition; it doubles with each. Pauses are random below it."""
    longest_pause_s: float = 30.0
    """Longest pause; an answer that asks for a longer one with Retry-After is final."""

    def pause_s(self, attempt: int) -> float:
        """Return a random pause after attempt 1, 2, ...: exponential back-off with full jitter."""
        return random.uniform(0, min(self.longest_pause_s, self.first_pause_s * 2 ** (attempt - 1)))  # noqa: S311


class Attempts:
    """The attempts to send one request.

    A request that the service refused before it looked at it (429), or that did not reach it, is sent again. After a
    lost connection and after 503, only a repeatable one is. A problem of 503 without `Retry-After` is final: waiting
    does not help.
    """

    def __init__(self, request: Request, retries: Retries, server: str) -> None:
        self._request = request
        self._retries = retries
        self._server = server
        self._made = 0

    def pause_after_error(self, error: httpx.TransportError) -> float:
        """Return the seconds until the next attempt. Raises CallError after the last one."""
        self._made += 1
        timed_out = isinstance(error, httpx.TimeoutException)
        again = isinstance(error, NOT_SENT) or (
            self._request.repeatable and isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
        )
        if not again or (timed_out and not isinstance(error, NOT_SENT)) or self._made >= self._retries.attempts:
            raise transport_error(error, self._server) from error
        return self._retries.pause_s(self._made)

    def pause_after_answer(self, response: httpx.Response) -> float | None:
        """Return the seconds until the next attempt; None: success. Raises CallError if the answer is final.

        Unless it is a success, the body must have been read.
        """
        self._made += 1
        if response.is_success:
            return None
        asked_s = retry_after_s(response)
        if not self._is_temporary(response, asked_s) or self._made >= self._retries.attempts:
            raise error_of(response, asked_s)
        pause_s = self._retries.pause_s(self._made)
        return pause_s if asked_s is None else asked_s + pause_s

    def _is_temporary(self, response: httpx.Response, asked_s: float | None) -> bool:
        if asked_s is not None and asked_s > self._retries.longest_pause_s:
            return False
        if response.status_code == TOO_MANY_REQUESTS:
            return True
        waiting_helps = asked_s is not None or problem_of(response) is None
        return response.status_code == UNAVAILABLE and self._request.repeatable and waiting_helps


def retry_after_s(response: httpx.Response) -> float | None:
    """Read Retry-After, which is a number of seconds or a date (RFC 9110); None: there is none."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    # A date without a zone is in UTC.
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
