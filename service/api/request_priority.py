"""What a request says about its own urgency: how long it waits, and who may go before it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

from service.segmentation.admission.request_context import INTERACTIVE

LONGEST_MS = 3_600_000
URGENCY = re.compile(r"(?:^|,)\s*u\s*=\s*([0-7])\s*(?:[,;]|$)")


@dataclass(frozen=True, slots=True)
class RequestPriority:
    """As `Pipeline.admission` takes it.

    Attributes:
        urgency: 0 to 7, lower goes first.
        timeout_s: After which the answer is of no use; None: any time.
    """

    urgency: int = INTERACTIVE
    timeout_s: float | None = None


# Async, though it waits for nothing: a plain function would go to a thread and back, for every image.
async def read_priority(
    x_request_timeout_ms: Annotated[
        int | None,
        Header(ge=1, le=LONGEST_MS, description="Milliseconds after which the answer is of no use: 504 then"),
    ] = None,
    priority: Annotated[
        str | None, Header(description="RFC 9218: `u=0` goes first, `u=7` last; 3 if it is not said")
    ] = None,
) -> RequestPriority:
    """The wish in a request's headers."""
    return RequestPriority(_urgency(priority), None if x_request_timeout_ms is None else x_request_timeout_ms / 1000)


def _urgency(priority: str | None) -> int:
    """RFC 9218, section 4: what is not understood counts as not said."""
    found = URGENCY.search(priority or "")
    return int(found[1]) if found else INTERACTIVE


PriorityOf = Annotated[RequestPriority, Depends(read_priority)]
