"""Values of JSON files as types. The error of a missing or odd value completes "the file ..." or "the region ..."."""

import base64
import binascii
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

Table = dict[str, Any]


class ContentError(ValueError):
    """A missing or odd value; the message completes "the file ..." or "the region ..."."""


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ContentError."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        is_cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
        problem = "ends too early" if is_cut else "is not JSON"
        raise ContentError(f"{problem} ({error})") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ContentError(f"cannot be read ({error})") from error


def table(value: Any, what: str) -> Table:
    """A JSON object."""
    if not isinstance(value, dict):
        raise ContentError(f"has no {what} (an object)")
    return value


def tables(value: Any, what: str) -> list[Table]:
    """A list of JSON objects."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ContentError(f"has no {what} (a list of objects)")
    return value


def text(value: Any, what: str) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise ContentError(f"has no {what} (a text)")
    return value


def number(value: Any, what: str) -> float:
    """A finite number."""
    if not is_number(value):
        raise ContentError(f"has no {what} (a number)")
    return float(value)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a finite number."""
    return type(value) in {int, float} and math.isfinite(value)


def points(value: Any, what: str = "points") -> list[tuple[float, float]]:
    """A list of [x, y]."""
    if not isinstance(value, list) or not all(isinstance(each, list | tuple) and len(each) == 2 for each in value):
        raise ContentError(f"has no {what} (a list of [x, y])")
    return [(number(x, f"{what} of numbers"), number(y, f"{what} of numbers")) for x, y in value]


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """(height, width) in pixels, if both are stated."""
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        return None
    return height, width


def run_lengths(value: Iterable[Any]) -> list[int]:
    """A list of numbers of pixels."""
    runs = list(value)
    if not all(type(run) is int and run >= 0 for run in runs):
        raise ContentError("has run lengths that are not numbers of pixels")
    return runs


def decoded(value: Any, what: str) -> bytes:
    """The bytes of a base64 text."""
    try:
        return base64.b64decode(text(value, what), validate=True)
    except binascii.Error as error:
        raise ContentError(f"has a damaged {what} ({error})") from error
