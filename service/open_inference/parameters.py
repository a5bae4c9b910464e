"""Parameters of a request.

Sequences, classification and shared memory are rejected; unknown parameters are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.errors import BadInput, NotSupported
from service.segmentation.admission.request_context import LEAST_URGENT

MAX_TIMEOUT_US = 2**63 - 1
MAX_PRIORITY = 2**32 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class InferPriority:
    """Urgency and timeout of a request; None: not given."""

    timeout_s: float | None = None
    """Seconds from now after which the client no longer needs the answer."""
    urgency: int | None = None
    """By RFC 9218, 0 to 7: the protocol's priority minus 1."""


def infer_priority(parameters: dict[str, Any]) -> InferPriority:
    """Read `priority` and `timeout`. Raises BadInput, or NotSupported if the request belongs to a sequence."""
    if parameters.get("sequence_id") not in (None, 0, ""):
        raise NotSupported("The models keep no state between requests: omit `sequence_id`.")
    timeout_us, priority = integer(parameters, "timeout", MAX_TIMEOUT_US), integer(parameters, "priority", MAX_PRIORITY)
    # 0 means not given.
    return InferPriority(
        timeout_s=timeout_us / 1e6 if timeout_us else None,
        urgency=min(priority - 1, LEAST_URGENT) if priority else None,
    )


def reject_shared_memory(parameters: dict[str, Any]) -> None:
    """Raise NotSupported for an input or output in shared memory."""
    if any(name.startswith("shared_memory_") for name in parameters):
        raise NotSupported("Shared memory is not supported: send and receive tensors in binary form.")


def parameters_of(part: dict[str, Any], what: str) -> dict[str, Any]:
    """Return the optional object `parameters` of a request's part. Raises BadInput."""
    parameters = part.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadInput(f"`parameters` of {what} must be an object.")
    return parameters


def integer(parameters: dict[str, Any], name: str, largest: int) -> int | None:
    """Return an integer parameter from 0 to `largest`; None if it is absent. Raises BadInput."""
    value = parameters.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= largest:
        raise BadInput(f"Parameter `{name}` must be an integer from 0 to {largest}.")
    return value


def flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    """Return a boolean parameter. Raises BadInput."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadInput(f"Parameter `{name}` must be true or false.")
    return value
