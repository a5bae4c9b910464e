"""Parse the JSON part of a request body, without the numbers of its tensors."""

from __future__ import annotations

import json
from typing import Any

from service.errors import BadInput
from service.open_inference.json_tensor import JsonNumbers, extract

MAX_TOKENS = 20_000
"""Limit on objects, arrays, commas and backslashes outside tensors, which cost time and memory."""
TOKENS = (b"{", b"[", b",", b"\\")
CHUNK_BYTES = 64 * 1024


def header_length(header: str | None, body_bytes: int) -> int | None:
    """Parse `Inference-Header-Content-Length`: the bytes of JSON in the decompressed body.

    None: the whole body is JSON; 0: the body is the tensor itself. Raises BadInput.
    """
    if header is None:
        return None
    # int() accepts signs, spaces, underscores and the digits of all scripts.
    length = int(header) if header.isascii() and header.isdigit() and len(header) < 20 else -1
    if not 0 <= length <= body_bytes:
        raise BadInput(
            f"Inference-Header-Content-Length is {header!r:.40} and the body has {body_bytes} bytes: send the length "
            "of the JSON in bytes, before compression."
        )
    return length


def read(text: bytes) -> dict[str, Any]:
    """Parse a JSON object; arrays of numbers with the key "data" become `JsonNumbers`. Raises BadInput."""
    rest, arrays = extract(text)
    _check_tokens(rest)
    parsed = _loads(rest, arrays)
    if not isinstance(parsed, dict):
        raise BadInput("The JSON must be an object.")
    return parsed


def _check_tokens(text: bytes) -> None:
    tokens = 0
    for at in range(0, len(text), CHUNK_BYTES):
        tokens += sum(text.count(token, at, at + CHUNK_BYTES) for token in TOKENS)
        if tokens > MAX_TOKENS:
            raise BadInput("The JSON has too many elements outside of its tensors: send tensors in binary form.")


def _loads(text: bytes, arrays: list[JsonNumbers]) -> Any:
    remaining = iter(arrays)

    def replace_placeholder(constant: str) -> JsonNumbers:
        array = next(remaining, None) if constant == "NaN" else None
        if array is None:
            raise ValueError(f"{constant} is not JSON")
        return array

    try:
        return json.loads(text.decode("utf-8-sig"), parse_constant=replace_placeholder)
    except UnicodeDecodeError:
        raise BadInput(
            "The body is not JSON: to send the tensor without JSON, set the header Inference-Header-Content-Length: 0."
        ) from None
    except RecursionError:
        raise BadInput("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise BadInput(f"The JSON is not valid ({error}).") from None
