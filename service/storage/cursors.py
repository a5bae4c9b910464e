"""Cursors of pages: the sequence number of the last row of the page before."""

from __future__ import annotations

from service.errors import BadInput

# Fits in SQL's BIGINT.
CURSOR_DIGITS = 18


def parse_cursor(cursor: str) -> int:
    """Read a cursor that a client sent. Raises BadInput."""
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= CURSOR_DIGITS):
        raise BadInput("The cursor is invalid: start without a cursor.")
    return int(cursor)
