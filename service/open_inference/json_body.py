"""The JSON of a request body: where it ends, and what is in it."""

from __future__ import annotations

import json
from typing import Any

from service.errors import BadInput
from service.open_inference.json_tensor import JsonNumbers, cut

MOST_PARTS = 20_000
"""Objects, arrays, commas and backslashes in the JSON without its tensors. No request comes near; each takes time and
memory."""
PARTS = (b"{", b"[", b",", b"\\")
STEP = 64 * 1024


def header_length(header: str | None, body: int) -> int | None:
    """What `Inference-Header-Content-Length` says: how many bytes of the body, unpacked, are JSON.

    Args:
        header: The header, if it was sent.
        body: Bytes of the body.

    Returns:
        None: all of it. 0: none, the body is the tensor itself.

    Raises:
        BadInput: No number, or more than there is.
    """
    if header is None:
        return None
    # int() takes signs, spaces, underscores and the digits of all scripts.
    length = int(header) if header.isascii() and header.isdigit() and len(header) < 20 else -1
    if not 0 <= length <= body:
        raise BadInput(
            f"Inference-Header-Content-Length is {header!r:.40} and the body has {body} bytes: it must say how many of "
            "them, before compression, are the JSON in front of the tensors."
        )
    return length


def read(text: bytes) -> dict[str, Any]:
    """A JSON object, in which arrays of numbers called "data" are `JsonNumbers`.

    Raises:
        BadInput: No JSON, or no object.
    """
    rest, arrays = cut(text)
    _check_parts(rest)
    found = _loads(rest, arrays)
    if not isinstance(found, dict):
        raise BadInput("The JSON must be an object.")
    return found


def _check_parts(rest: bytes) -> None:
    parts = 0
    for at in range(0, len(rest), STEP):
        parts += sum(rest.count(part, at, at + STEP) for part in PARTS)
        if parts > MOST_PARTS:
            raise BadInput("There are more parts in the JSON than any request has: send tensors in binary form.")


def _loads(rest: bytes, arrays: list[JsonNumbers]) -> Any:
    waiting = iter(arrays)

    def take(constant: str) -> JsonNumbers:
        array = next(waiting, None) if constant == "NaN" else None
        if array is None:
            raise ValueError(f"{constant} is no JSON")
        return array

    try:
        return json.loads(rest.decode("utf-8"), parse_constant=take)
    except UnicodeDecodeError:
        raise BadInput(
            "The body is no JSON: what is sent as the tensor itself, without any, needs the header "
            "Inference-Header-Content-Length: 0."
        ) from None
    except RecursionError:
        raise BadInput("The JSON is nested too deep.") from None
    except ValueError as error:
        raise BadInput(f"The JSON is not valid ({error}).") from None
