"""Errors of the client.

CallError
├── Unreachable        no connection to the service, or it was lost
├── TimedOut           the service did not answer in time
├── UnexpectedAnswer   the answer is none of Maskloop's: a wrong address, or a proxy
└── Refused            the service refused the call, with reason and remedy (RFC 9457)
    ├── KeyRefused     401, 403: the key is missing, invalid or lacks a scope
    ├── Missing        404, 410: there is no such thing, or it was deleted
    ├── Conflict       409: not possible in the present state
    ├── Invalid        400, 406, 413, 415, 422: image, label, bundle or parameter cannot be used
    ├── TryLater       408, 429, 503, 504: overloaded, rate limit, or a part of the service is missing
    └── Fault          500, 507: the service or its disk has a fault
"""

# ruff: noqa: N818 - the classes are named by what happened

from __future__ import annotations

import httpx
from pydantic import ValidationError

from service.client.answers import Problem

PROBLEM_TYPE = "application/problem+json"
SLUG = "urn:maskloop:problem:"


class CallError(Exception):
    """A call failed. The text states what is wrong and the remedy."""


class Unreachable(CallError):
    """There is no connection to the service, or it was lost before the answer."""


class TimedOut(CallError):
    """The service did not answer in time."""


class UnexpectedAnswer(CallError):
    """The answer is not one of Maskloop."""


class Refused(CallError):
    """The service refused the call; `problem.detail`, also the text of this error, has the reason and the remedy."""

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.problem.status

    @property
    def slug(self) -> str:
        """Stable name of the problem, such as `run-active`."""
        return self.problem.type.removeprefix(SLUG)


class KeyRefused(Refused):
    """The key is missing, invalid or lacks a scope."""


class Missing(Refused):
    """There is no such thing, or it was deleted."""


class Conflict(Refused):
    """The call is not possible in the present state."""


class Invalid(Refused):
    """Image, label, bundle or parameter cannot be used."""


class TryLater(Refused):
    """The service is overloaded, the rate limit is exceeded, or a part of the service is missing."""


class Fault(Refused):
    """The service or its disk has a fault."""


KINDS: dict[int, type[Refused]] = {
    **dict.fromkeys((401, 403), KeyRefused),
    **dict.fromkeys((404, 410), Missing),
    409: Conflict,
    **dict.fromkeys((400, 406, 413, 415, 422), Invalid),
    **dict.fromkeys((408, 429, 503, 504), TryLater),
    **dict.fromkeys((500, 507), Fault),
}


def error_of(response: httpx.Response, retry_after_s: float | None) -> CallError:
    """Return the error for an answer that is no success. Its body must have been read."""
    problem = problem_of(response)
    if problem is not None:
        return KINDS.get(response.status_code, Refused)(problem, retry_after_s)
    where, status = response.request.url, response.status_code
    if response.is_redirect:
        target = response.headers.get("Location", "another address")
        return UnexpectedAnswer(f"{where} redirects to {target}: give that server.")
    return UnexpectedAnswer(
        f"{where} answered {status} ({response.reason_phrase}) without an explanation: it is not a Maskloop service, "
        "or a proxy before it answered. Check the address of the server."
    )


def problem_of(response: httpx.Response) -> Problem | None:
    """Return the problem document of an answer; None: it has none."""
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() != PROBLEM_TYPE:
        return None
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return None


def transport_error(error: httpx.TransportError, server: str) -> CallError:
    """Return the error for a request without an answer."""
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return TimedOut(f"{server} did not answer in time ({reason}): send less at once, or allow more time.")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Unreachable(f"{server} cannot be reached ({reason}): start the service, or correct its address.")
    if isinstance(error, httpx.UnsupportedProtocol):
        return Unreachable(f"{server} is no address of a server: write it as http://HOST:PORT.")
    return Unreachable(f"The connection to {server} was lost ({reason}): look whether the service runs, and try again.")
