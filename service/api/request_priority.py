"""Priority (RFC 9218) and timeout of a request, from its headers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

from service.segmentation.admission.request_context import INTERACTIVE

MAX_TIMEOUT_MS = 3_600_000
URGENCY = re.compile(r"(?:^|,)\s*u\s*=\s*([0-7])\s*(?:[,;]|$)")


@dataclass(frozen=True, slots=True)
class RequestPriority:
    """Urgency, 0 to 7 (lower goes first), and timeout in seconds; None: no timeout."""

    urgency: int = INTERACTIVE
    timeout_s: float | None = None


async def read_priority(
    x_request_timeout_ms: Annotated[
        int | None, Header(ge=1, le=MAX_TIMEOUT_MS, description="Timeout in milliseconds; after it the response is 504")
    ] = None,
    priority: Annotated[str | None, Header(description="RFC 9218: `u=0` goes first, `u=7` last; default 3")] = None,
) -> RequestPriority:
    """Read the priority headers of a request."""
    return RequestPriority(_urgency(priority), None if x_request_timeout_ms is None else x_request_timeout_ms / 1000)


def _urgency(priority: str | None) -> int:
    # RFC 9218, section 4: an invalid value counts as the default.
    found = URGENCY.search(priority or "")
    return int(found[1]) if found else INTERACTIVE


PriorityOf = Annotated[RequestPriority, Depends(read_priority)]
