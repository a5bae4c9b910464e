"""Tensors as JSON numbers, read and written in pieces.

The parser of the standard library keeps every other thread waiting until it is done, half a second for a picture of
640x480. So the numbers are cut out of the text before it parses the rest, and go through it a piece at a time, into an
array of bytes: what waits is served in between, and no list of millions of numbers is ever in memory.
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

PIECE = 128 * 1024
LONGEST_NUMBER = 1024
"""A number with all the space and brackets around it."""
DEEPEST = 8
MOST_ARRAYS = 16
PLACE = b"NaN"
"""What stands in the text for an array that was cut out of it. JSON has no such value, so no client can send one."""

KEY = b'"data"'
# Behind the key, an array whose first element is a number. No string can hold this: its quotes would be escaped.
BEGIN = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*(?=\[[\[ \t\r\n]*[-\d\]])')
EMPTY = re.compile(rb"\[[ \t\r\n]*\]")
# Two signs with nothing between them, or a number beside a bracket with no comma between.
BROKEN = re.compile(rb"[\[,]\s*[,\]]|[-\d]\s*\[|\]\s*[-\d]")
SIGNS = b"0123456789-,[] \t\r\n"
NO_BRACKETS = bytes.maketrans(b"[]", b"  ")


@dataclass(frozen=True, slots=True)
class JsonNumbers:
    """A JSON array of numbers, flat or nested, that has not been read yet: `text[begin:end]`."""

    text: bytes
    begin: int
    end: int

    def read(self) -> npt.NDArray[np.uint8]:
        """The numbers in their order.

        Raises:
            BadInput: Something else than whole numbers from 0 to 255 in arrays.
        """
        if EMPTY.fullmatch(self.text, self.begin, self.end):
            return np.zeros(0, np.uint8)
        return np.concatenate([_numbers(piece) for piece in self._pieces()])

    def _pieces(self) -> Iterator[bytes]:
        at = self.begin
        while at < self.end:
            comma = self.text.find(b",", at + PIECE, at + PIECE + LONGEST_NUMBER)
            stop = comma if 0 <= comma < self.end else self.end
            if stop - at > PIECE + LONGEST_NUMBER:
                raise BadInput("The JSON is not valid: `data` holds what is no number.")
            yield self.text[at:stop]
            at = stop + 1


def cut(text: bytes) -> tuple[bytes, list[JsonNumbers]]:
    """Cut the arrays of numbers that are called "data" out of a JSON text.

    Returns:
        The text with `PLACE` in the place of each, and the arrays in their order.

    Raises:
        BadInput: An array without an end, or nested beyond reason, or too many of them.
    """
    kept: list[bytes] = []
    found: list[JsonNumbers] = []
    at = 0
    while (key := text.find(KEY, at)) >= 0:
        if len(kept) > MOST_ARRAYS:
            raise BadInput("There are more tensors in the JSON than the model takes.")
        head = BEGIN.match(text, key)
        if head is None:
            kept.append(text[at : key + len(KEY)])
            at = key + len(KEY)
            continue
        numbers = JsonNumbers(text, head.end(), _end(text, head.end()))
        kept += [text[at : numbers.begin], PLACE]
        found.append(numbers)
        at = numbers.end
    return (b"".join([*kept, text[at:]]) if kept else text), found


def write(numbers: npt.NDArray[Any]) -> Iterator[bytes]:
    """A flat JSON array of any numbers, in parts."""
    flat = numbers.reshape(-1)
    yield b"["
    for at in range(0, flat.size, PIECE // 4):
        piece = json.dumps(flat[at : at + PIECE // 4].tolist(), separators=(",", ":"))
        yield (b"," if at else b"") + piece[1:-1].encode()
    yield b"]"


def _end(text: bytes, begin: int) -> int:
    """Where the array that begins here ends: behind the bracket that closes the first one."""
    depth = 0
    for at in range(begin, len(text), PIECE):
        signs = np.frombuffer(text, np.uint8, count=min(PIECE, len(text) - at), offset=at)
        depths = depth + np.cumsum((signs == ord("[")).astype(np.int32) - (signs == ord("]")))
        closed = np.flatnonzero(depths == 0)
        within = depths[: closed[0]] if closed.size else depths
        if within.max(initial=0) > DEEPEST:
            raise BadInput(f"`data` is nested more than {DEEPEST} deep, and no tensor is.")
        if closed.size:
            return at + int(closed[0]) + 1
        depth = int(depths[-1])
    raise BadInput("The JSON is not valid: the array `data` has no end.")


def _numbers(piece: bytes) -> npt.NDArray[np.uint8]:
    if piece.translate(None, SIGNS):
        raise BadInput("`data` in JSON must be whole numbers.")
    broken = BROKEN.search(b"," + piece + b",")
    try:
        numbers = [] if broken else json.loads(b"[" + piece.translate(NO_BRACKETS) + b"]")
    except ValueError:
        numbers = []
    if not numbers:
        raise BadInput("The JSON is not valid: `data` is no array of numbers.")
    try:
        # Faster than numpy's own way, and it refuses what does not fit.
        return np.frombuffer(bytes(numbers), np.uint8)
    except ValueError:
        raise BadInput("`data` of UINT8 must be numbers from 0 to 255.") from None
