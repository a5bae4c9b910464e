"""Answer with the candidate of a canary release, and with the active model if the candidate fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from service.errors import BadInput, DeadlinePassed, Overloaded
from service.segmentation.pipeline import ClientDisconnected

log = structlog.stdlib.get_logger(__name__)

M = TypeVar("M")
T = TypeVar("T")


async def answer(attempt: Callable[[M], Awaitable[T]], canary: M | None, active: M) -> tuple[M, T]:
    """Call `attempt` with the candidate, if the request is in its share; return the model that answered.

    If the candidate fails, it is called with the active model: a bad candidate costs no answer, and an image on which
    both fail counts against both. Raises as `attempt`.
    """
    if canary is None:
        return active, await attempt(active)
    try:
        return canary, await attempt(canary)
    except (BadInput, Overloaded, DeadlinePassed, ClientDisconnected):
        raise
    except Exception as error:
        log.warning("the canary failed; the active model answers", reason=str(error))
        return active, await attempt(active)
