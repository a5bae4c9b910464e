"""Parse and write tensors as JSON numbers, in chunks.

The standard library's parser holds the GIL for half a second for an image of 640x480. So the numbers are extracted
before the rest is parsed, and parsed in chunks into a uint8 array.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import BadInput

CHUNK_BYTES = 128 * 1024
MAX_NUMBER_BYTES = 1024
"""Longest number, with whitespace and brackets around it."""
MAX_DEPTH = 8
MAX_DATA = 16
"""Times that the string "data" may occur: once per tensor."""
PLACEHOLDER = b"NaN"
"""Replaces an extracted array. JSON has no NaN; `json_body` counts them and rejects those of a client."""

KEY = b'"data"'
# The key and the start of an array. No string matches: its quotes would be escaped.
NUMBERS = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*(?=\[[\[ \t\r\n]*[-\d\]])')
EMPTY = re.compile(rb"\[[ \t\r\n]*\]")
# Two separators without a number between, or a number next to a bracket without a comma.
MALFORMED = re.compile(rb"[\[,]\s*[,\]]|[-\d]\s*\[|\]\s*[-\d]")
ALLOWED = b"0123456789-,[] \t\r\n"
NO_BRACKETS = bytes.maketrans(b"[]", b"  ")


@dataclass(frozen=True, slots=True)
class JsonNumbers:
    """A JSON array of numbers, flat or nested, not parsed yet: `text[begin:end]`."""

    text: bytes
    begin: int
    end: int

    def read(self) -> npt.NDArray[np.uint8]:
        """Parse the numbers into a flat array. Raises BadInput for anything but integers from 0 to 255."""
        if EMPTY.fullmatch(self.text, self.begin, self.end):
            return np.zeros(0, np.uint8)
        return np.concatenate([_parse(chunk) for chunk in self._chunks()])

    def _chunks(self) -> Iterator[bytes]:
        at = self.begin
        while at < self.end:
            comma = self.text.find(b",", at + CHUNK_BYTES, at + CHUNK_BYTES + MAX_NUMBER_BYTES)
            stop = comma if 0 <= comma < self.end else self.end
            if stop - at > CHUNK_BYTES + MAX_NUMBER_BYTES:
                raise BadInput("The JSON is not valid: `data` must hold numbers only.")
            yield self.text[at:stop]
            at = stop + 1


def extract(text: bytes) -> tuple[bytes, list[JsonNumbers]]:
    """Extract the arrays of numbers with the key "data" from a JSON text.

    Returns the text with `PLACEHOLDER` in place of each array, and the arrays. Raises BadInput if one is not closed or
    is nested too deeply, or if "data" occurs too often.
    """
    kept: list[bytes] = []
    arrays: list[JsonNumbers] = []
    at = found = 0
    while (key := text.find(KEY, at)) >= 0:
        found += 1
        if found > MAX_DATA:
            raise BadInput(f'The JSON has "data" more than {MAX_DATA} times: the model has one input.')
        head = NUMBERS.match(text, key)
        if head is None:
            kept.append(text[at : key + len(KEY)])
            at = key + len(KEY)
            continue
        numbers = JsonNumbers(text, head.end(), _array_end(text, head.end()))
        kept += [text[at : numbers.begin], PLACEHOLDER]
        arrays.append(numbers)
        at = numbers.end
    return (b"".join([*kept, text[at:]]) if kept else text), arrays


def write(numbers: npt.NDArray[Any]) -> Iterator[bytes]:
    """Write finite numbers as a flat JSON array, in parts."""
    flat = numbers.reshape(-1)
    yield b"["
    for at in range(0, flat.size, CHUNK_BYTES // 4):
        chunk = json.dumps(flat[at : at + CHUNK_BYTES // 4].tolist(), separators=(",", ":"))
        yield (b"," if at else b"") + chunk[1:-1].encode()
    yield b"]"


def _array_end(text: bytes, begin: int) -> int:
    """Return the position after the array at `begin`."""
    depth = 0
    for at in range(begin, len(text), CHUNK_BYTES):
        chars = np.frombuffer(text, np.uint8, count=min(CHUNK_BYTES, len(text) - at), offset=at)
        depths = depth + np.cumsum((chars == ord("[")).astype(np.int32) - (chars == ord("]")))
        closed = np.flatnonzero(depths == 0)
        inside = depths[: closed[0]] if closed.size else depths
        if inside.max(initial=0) > MAX_DEPTH:
            raise BadInput(
                f"`data` is nested more than {MAX_DEPTH} levels deep: nest it like `shape`, or send a flat array."
            )
        if closed.size:
            return at + int(closed[0]) + 1
        depth = int(depths[-1])
    raise BadInput("The JSON is not valid: the array `data` is not closed.")


def _parse(chunk: bytes) -> npt.NDArray[np.uint8]:
    if chunk.translate(None, ALLOWED):
        raise BadInput("`data` in JSON must be integers.")
    malformed = MALFORMED.search(b"," + chunk + b",")
    try:
        numbers = [] if malformed else json.loads(b"[" + chunk.translate(NO_BRACKETS) + b"]")
    except ValueError:
        numbers = []
    if not numbers:
        raise BadInput("The JSON is not valid: `data` is not an array of numbers.")
    try:
        # Faster than np.array, and rejects values out of range.
        return np.frombuffer(bytes(numbers), np.uint8)
    except ValueError:
        raise BadInput("`data` of UINT8 must be numbers from 0 to 255.") from None
