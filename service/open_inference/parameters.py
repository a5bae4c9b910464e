"""The parameters of a request: what there is in the protocol, and what becomes of it here.

`timeout` and `priority` are read into an `Urgency`. `binary_data_output` and, of outputs, `binary_data` choose the
form of the answer. Sequences, classification and shared memory are refused; a client's own parameters are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.errors import BadInput, NotSupported
from service.segmentation.admission.request_context import LEAST_URGENT

LONGEST_TIMEOUT_US = 2**63 - 1
LOWEST_PRIORITY = 2**32 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Urgency:
    """How soon an answer is wanted."""

    timeout_us: int | None = None
    """Microseconds from now after which nobody waits for it any more; None: somebody always does."""
    priority: int = 0
    """1 is the most urgent, and 2 the next; 0: the client has not said."""

    @property
    def timeout_s(self) -> float | None:
        """The timeout in seconds."""
        return None if self.timeout_us is None else self.timeout_us / 1e6

    @property
    def level(self) -> int | None:
        """The urgency of RFC 9218, 0 to 7: the protocol's priority less 1; None where the client has not said."""
        return min(self.priority - 1, LEAST_URGENT) if self.priority else None


def urgency_of(parameters: dict[str, Any]) -> Urgency:
    """What a request's parameters say about it.

    Raises:
        BadInput: A value that is none.
        NotSupported: The request belongs to a sequence.
    """
    if parameters.get("sequence_id") not in (None, 0, ""):
        raise NotSupported("These models keep nothing from one request to the next: leave `sequence_id` out.")
    # Of both, 0 says what leaving it out says.
    return Urgency(
        timeout_us=whole(parameters, "timeout", LONGEST_TIMEOUT_US) or None,
        priority=whole(parameters, "priority", LOWEST_PRIORITY) or 0,
    )


def refuse_shared_memory(parameters: dict[str, Any]) -> None:
    """Refuse an input or output that lies in memory which client and server share.

    Raises:
        NotSupported: It does.
    """
    if any(name.startswith("shared_memory_") for name in parameters):
        raise NotSupported("Shared memory is not supported: send and receive tensors in binary form.")


def parameters_of(part: dict[str, Any], what: str) -> dict[str, Any]:
    """The object `parameters` of a part of a request, which may be left out.

    Raises:
        BadInput: It is no object.
    """
    parameters = part.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadInput(f"`parameters` of {what} must be an object.")
    return parameters


def whole(parameters: dict[str, Any], name: str, largest: int) -> int | None:
    """A whole number; None where it is left out.

    Raises:
        BadInput: Something else, or out of range.
    """
    value = parameters.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= largest:
        raise BadInput(f"Parameter `{name}` must be a whole number from 0 to {largest}.")
    return value


def flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    """A boolean.

    Raises:
        BadInput: Something else.
    """
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadInput(f"Parameter `{name}` must be true or false.")
    return value
