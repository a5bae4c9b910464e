"""Split a batch into chunks of rows, so that tensors with one value per class and pixel fit into memory."""

from collections.abc import Iterator

MAX_ELEMENTS = 2**26
"""Maximum elements of one intermediate tensor (classes x pixels): 256 MiB in fp32, for any batch and class count."""


def row_chunks(rows: int, elements_per_row: int, max_elements: int = MAX_ELEMENTS) -> Iterator[slice]:
    """Slices that cover `rows` in order, each of at most `max_elements` elements, but at least one row."""
    at_once = max(1, max_elements // elements_per_row)
    for start in range(0, rows, at_once):
        yield slice(start, min(start + at_once, rows))
