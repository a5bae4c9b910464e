"""Parts of a batch that fit into memory: what a pixel needs for each class is made for a few rows at a time."""

from collections.abc import Iterator

MAX_ELEMENTS = 2**26
"""Numbers of one intermediate tensor, a class times a pixel: 256 MiB in fp32, whatever the classes and the batch."""


def row_chunks(rows: int, elements_per_row: int, max_elements: int = MAX_ELEMENTS) -> Iterator[slice]:
    """Slices that cover `rows` in order, each of at most `max_elements` numbers, but of one row at least."""
    at_once = max(1, max_elements // elements_per_row)
    for start in range(0, rows, at_once):
        yield slice(start, min(start + at_once, rows))
